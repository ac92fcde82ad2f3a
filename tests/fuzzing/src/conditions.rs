//! Conditions: an expression in CEL is refused, or gives the same answer wherever it is asked.
//!
//! An input is an expression, a line `---` and the data of an event. What an answer may cost is
//! counted before it is given; how long it really takes is judged by whoever runs this.

use std::collections::BTreeMap;

use fanfare_domain::{
    Condition,
    condition::{Broken, Budget, Failed, Subject},
};

use crate::input::{halves, text};

/// The most data that is looked at.
const BYTES_MAX: usize = 16 * 1_024;

/// Reads an input as an expression and data, and asks it.
pub fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (expression, data) = halves(text);
    let condition = match Condition::parse(expression) {
        Ok(condition) => condition,
        Err(broken) => return refused(expression, &broken),
    };
    assert!(expression.len() <= Condition::BYTES_MAX);
    assert_eq!(condition.text(), expression);
    let data = Some(data.trim_end()).filter(|data| !data.is_empty()).unwrap_or("{}");
    if data.len() > BYTES_MAX {
        return;
    }
    let attributes = BTreeMap::from([(String::from("region"), String::from("eu"))]);
    let subject = || Subject::new("invoice.paid", &attributes, data.as_bytes());
    let judged = condition.judge(&subject());
    if let Err(failed) = &judged {
        said(expression, failed);
    }
    let answer = answer(judged);
    // The members of objects have no order: another copy of the event has another one.
    assert_eq!(self::answer(condition.judge(&subject())), answer, "{expression}: asked again");
    let stored = Condition::stored(expression).judge(&subject());
    assert_eq!(self::answer(stored), answer, "{expression}: asked as it is stored");
    let within = condition.judge_within(&subject(), &mut Budget::whole());
    assert_eq!(self::answer(within), answer, "{expression}: asked as one of many");
}

/// What counts of an answer: of several failures, any one may be told.
fn answer(judged: Result<bool, Failed>) -> Result<bool, &'static str> {
    judged.map_err(|failed| failed.kind())
}

/// A refusal says where, within the expression, and is one line.
fn refused(expression: &str, broken: &Broken) {
    let Broken { line, column, reason } = broken;
    assert!(*line >= 1 && *column >= 1, "{expression}: {broken}");
    assert!(
        !reason.is_empty() && reason.len() <= Condition::BYTES_MAX + 400,
        "{expression}: {broken}"
    );
    assert!(!reason.contains(char::is_control), "{expression}: {broken}");
    let stored = Condition::stored(expression);
    let judged = stored.judge(&Subject::new("a", &BTreeMap::new(), b"{}"));
    assert_eq!(judged, Err(Failed::Broken(broken.clone())), "{expression}: asked as it is stored");
}

/// A failure is told in few words, and is never a defect of ours.
fn said(expression: &str, failed: &Failed) {
    assert_ne!(*failed, Failed::Defect, "{expression}: the evaluation panicked");
    let words = failed.to_string();
    assert!(!words.is_empty() && words.len() <= 400, "{expression}: {words}");
    assert!(!words.contains(char::is_control), "{expression}: {words}");
    assert!(!failed.kind().is_empty());
}
