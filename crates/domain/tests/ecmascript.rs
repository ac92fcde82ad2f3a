//! The ECMAScript form of JSON, checked against a real ECMAScript engine.
//!
//! One `node` process is fed all cases. Without `node` the tests say so and check nothing.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use fanfare_domain::json::{Limits, check};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

/// Reads texts, each as a JSON string on a line, and answers with the form of each. `exact` tells
/// whether a number keeps its value, by arithmetic on whole numbers: another way than ours.
const ORACLE: &str = r#"
const lines = require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
function exact(literal, form) {
  const parts = (text) => {
    const [, sign, whole, fraction = "", power = "0"] =
      /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
    if (whole === undefined) return null;
    return [BigInt(sign + whole + fraction), Number(power) - fraction.length];
  };
  const one = parts(literal), other = parts(form);
  if (one === null || other === null) return false;
  if (one[0] === 0n || other[0] === 0n) return one[0] === other[0];
  const least = Math.min(one[1], other[1]);
  if (Math.abs(one[1] - other[1]) > 2000) return false;
  return one[0] * 10n ** BigInt(one[1] - least) === other[0] * 10n ** BigInt(other[1] - least);
}
const number = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/;
for (const line of lines) {
  const text = JSON.parse(line);
  const form = JSON.stringify(JSON.parse(text));
  const kept = !number.test(text) || exact(text, form);
  console.log(kept ? form : "changed");
}
"#;

/// Returns the oracle's answers; `None` without an oracle.
fn ask(cases: &[String]) -> Option<Vec<String>> {
    let version = Command::new("node").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        skip();
        return None;
    }
    let mut node = Command::new("node")
        .args(["-e", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Node reads all of its input before it answers, so that neither waits for the other.
    let mut input = node.stdin.take().unwrap();
    for case in cases {
        writeln!(input, "{}", serde_json::to_string(case).unwrap()).unwrap();
    }
    drop(input);
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "node failed");
    let answers: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect();
    assert_eq!(answers.len(), cases.len());
    Some(answers)
}

/// Says that nothing is checked. Written directly: what a passing test prints is not shown.
fn skip() {
    std::io::stderr().write_all(b"SKIPPED: there is no node to compare with\n").unwrap();
}

/// Returns our form of a text; `None` if its keys are not distinct.
fn ours(text: &str) -> Option<String> {
    let checked = check(text.as_bytes(), &Limits::default()).ok()?;
    let mut out = String::new();
    let carried = checked.ecmascript(&mut out);
    Some(if carried.is_ok() { out } else { String::from("changed") })
}

fn compare(cases: Vec<String>) {
    let cases: Vec<_> = cases.into_iter().filter(|text| ours(text).is_some()).collect();
    let Some(answers) = ask(&cases) else { return };
    for (case, theirs) in cases.iter().zip(answers) {
        assert_eq!(ours(case), Some(theirs), "{case}");
    }
}

/// Draws values, the same in every run.
fn draw<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn numbers_are_carried_or_refused_as_the_engine_would_have_it() {
    let written = "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?";
    let short = "-?(0|[1-9][0-9]{0,16})(\\.0{0,8}[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?";
    let mut cases = draw(3_000, &written);
    cases.extend(draw(3_000, &short));
    // Every double has a form that is carried: its shortest one.
    let doubles = draw(3_000, &any::<u64>()).into_iter().map(f64::from_bits);
    cases.extend(doubles.filter(|double| double.is_finite()).map(|double| format!("{double:e}")));
    for power in 0..=64 {
        let whole = 1_u128 << power;
        cases.extend([whole - 1, whole, whole + 1].map(|whole| whole.to_string()));
        cases.push(format!("0.{}1", "0".repeat(power)));
        cases.push(format!("1{}", "0".repeat(power)));
    }
    for text in [
        "-0",
        "-0.0",
        "0e9",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "4.9e-324",
        "2.5e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "98.50",
        "1e3",
        "0.10",
        "12345678901234567890",
    ] {
        cases.push(String::from(text));
    }
    compare(cases);
}

#[test]
fn strings_are_written_as_the_engine_does() {
    let escaped = r#""([ -!#-\[\]-~]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-f]{2}|\\u[dD][c-fC-F][0-9A-F]{2}){0,12}""#;
    let mut cases = draw(4_000, &escaped);
    cases.extend(
        draw(2_000, &"\\PC{0,12}").into_iter().map(|plain| serde_json::to_string(&plain).unwrap()),
    );
    // Each unit of UTF-16 that stands for something by itself.
    cases.extend((0..=0xffff_u32).step_by(7).map(|unit| format!("\"\\u{unit:04X}\"")));
    cases.extend((0..0x180_u32).map(|unit| format!("\"\\u{unit:04x}\"")));
    cases.extend(["\"\u{2028}\u{2029}\u{7f}\u{feff}\"", "\"\u{10ffff}\""].map(String::from));
    compare(cases);
}

#[test]
fn objects_are_ordered_as_the_engine_does() {
    let key = r"(0|[1-9][0-9]{0,10}|0[0-9]|-[0-9]|[a-c]{0,2}|\\u003[0-9]|__proto__|toJSON|constructor|length|1\.0|1e3)";
    let value = prop_oneof!["[0-9]", Just(String::from("{\"b\":{},\"7\":[]}")), "\"[0-9]\""];
    let member = (key, value).prop_map(|(key, value)| format!("\"{key}\" : {value}"));
    let object = prop::collection::vec(member, 0..7)
        .prop_map(|members| format!("{{ {} }}", members.join(" , ")));
    let nested = (object.clone(), object.clone())
        .prop_map(|(one, other)| format!("[{one},\n{{\"x\":{other},\"3\":{one}}}]"));
    let mut cases = draw(4_000, &object);
    cases.extend(draw(2_000, &nested));
    for first in [
        "4294967293",
        "4294967294",
        "4294967295",
        "4294967296",
        "9007199254740991",
        "00",
        "+1",
        " 1",
    ] {
        cases.push(format!("{{\"z\":0,\"{first}\":1,\"1\":2,\"a\":3,\"0\":4}}"));
    }
    compare(cases);
}

#[test]
fn whole_documents_are_written_as_the_engine_does() {
    let leaf = prop_oneof![
        "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,4})?",
        r#""([a-c ]|é|\\n|\\u[dD]83[dD]\\u[dD][eE]00){0,4}""#,
        Just(String::from("true")),
        Just(String::from("false")),
        Just(String::from("null")),
    ];
    let document = leaf.prop_recursive(6, 64, 6, |inner| {
        let blank = "[ \n\t\r]{0,2}";
        let member = (blank, "[0-9]{1,2}|[a-z]{0,3}", inner.clone())
            .prop_map(|(blank, key, value)| format!("{blank}\"{key}\"{blank}:{blank}{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    });
    compare(draw(2_000, &document));
}
