//! What an expression may be made of, so that asking it costs little.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{
    IdedExpr, ParseErrors, Program,
    common::ast::{ComprehensionExpr, EntryExpr, Expr},
};

use super::{
    Broken, Condition,
    cost::{Cost, Rounds},
    shorten,
};

/// The variables of an expression.
const VARIABLES: [&str; 3] = ["type", "attributes", "data"];

/// What macros gather in: nobody can write such a name.
const RESULT: &str = "@result";

/// The functions of an expression, besides operators and macros.
const FUNCTIONS: [&str; 8] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string"];

/// How many brackets may be open at once: the parser works its way into them by recursion.
const BRACKETS_MAX: usize = 24;

/// How deep the tree of an expression may be: so do we, and so does evaluating it.
const DEPTH_MAX: usize = 48;

/// How many macros may be within one another: each multiplies the iterations.
const MACROS_MAX: usize = 2;

/// How many sums may be in an expression: each can copy a text as large as the data.
const SUMS_MAX: usize = 16;

/// How often values may be compared that are both unknown: each can be as large as the data.
const COMPARISONS_MAX: usize = 16;

/// Reads an expression, and says what it may cost.
pub(super) fn parse(text: &str) -> Result<(Program, Cost), Broken> {
    let broken = |at: usize, reason: String| Err(Broken::at(text, at, reason));
    if text.len() > Condition::BYTES_MAX {
        let reason = format!("it has {} bytes, and can have {}", text.len(), Condition::BYTES_MAX);
        return broken(0, reason);
    }
    if text.trim().is_empty() {
        return broken(0, String::from("it is empty"));
    }
    if let Some(at) = too_many_brackets(text) {
        return broken(at, format!("more than {BRACKETS_MAX} brackets are open"));
    }
    let compiled = catch_unwind(AssertUnwindSafe(|| Program::compile(text)));
    let program = match compiled {
        Ok(Ok(program)) => program,
        Ok(Err(errors)) => return Err(Broken::of(text, &errors)),
        Err(_panic) => return broken(0, String::from("it is not an expression")),
    };
    let mut check = Check {
        text,
        scope: Vec::new(),
        macros: Vec::new(),
        comparisons: 0,
        cost: Cost::default(),
    };
    check.look(program.expression(), 0)?;
    let cost = check.cost;
    Ok((program, cost))
}

/// Finds the bracket that is one too many within others. Brackets in texts count as well.
fn too_many_brackets(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, symbol) in text.char_indices() {
        match symbol {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > BRACKETS_MAX {
            return Some(at);
        }
    }
    None
}

/// Looks at every part of an expression.
struct Check<'a> {
    text: &'a str,
    /// The variables of the macros around what is looked at.
    scope: Vec<String>,
    macros: Vec<Around>,
    comparisons: usize,
    cost: Cost,
}

/// A macro around what is looked at.
struct Around {
    variable: String,
    rounds: Rounds,
}

impl Check<'_> {
    fn look(&mut self, part: &IdedExpr, depth: usize) -> Result<(), Broken> {
        if depth > DEPTH_MAX {
            return self.refuse("", "it is nested too deep: use brackets, or fewer operators");
        }
        let deeper = depth + 1;
        match &part.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.look(&select.operand, deeper),
            Expr::Call(call) => {
                self.function(&call.func_name, &call.args)?;
                let is_counted = matches!(call.func_name.as_str(), "size" | "@in");
                let parts = call.target.as_deref().into_iter().chain(&call.args);
                parts.into_iter().try_for_each(|part| self.value(part, deeper, is_counted))
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|part| self.value(part, deeper, false))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.value(&entry.key, deeper, false)?;
                    self.value(&entry.value, deeper, false)
                }
                EntryExpr::StructField(_) => self.refuse("", "messages cannot be made here"),
            }),
            Expr::Comprehension(part) => self.comprehension(part, deeper),
            Expr::Struct(_) | Expr::Unspecified => self.refuse("", "messages cannot be made here"),
        }
    }

    /// Looks at what a part of an expression is made from. The members of a map have no order, so
    /// neither has a list that is made from them: it may be counted and searched only.
    fn value(&mut self, part: &IdedExpr, depth: usize, is_counted: bool) -> Result<(), Broken> {
        if let Expr::Comprehension(made) = &part.expr
            && makes_a_list(made)
            && !is_counted
        {
            let why =
                "what map and filter give may only be counted or searched: size, in, all, exists";
            return self.refuse("", why);
        }
        self.look(part, depth)
    }

    fn comprehension(&mut self, part: &ComprehensionExpr, depth: usize) -> Result<(), Broken> {
        if self.macros.len() >= MACROS_MAX {
            let why = "only two macros (all, exists, filter, map) can be within one another";
            return self.refuse("", why);
        }
        if VARIABLES.contains(&part.iter_var.as_str()) {
            return self.refuse("", "the variable of a macro needs a name of its own");
        }
        self.look(&part.iter_range, depth)?;
        self.value(&part.accu_init, depth, false)?;
        let rounds = self.rounds(&part.iter_range);
        let body = [&part.loop_cond, &part.loop_step, &part.result];
        let is_foreign = |name: &str| {
            VARIABLES.contains(&name) || self.macros.iter().any(|around| around.variable == name)
        };
        if rounds.multiply() || body.iter().any(|part| mentions(part, &is_foreign)) {
            self.cost.rounds.push(rounds);
        }
        let before = self.scope.len();
        self.scope.push(part.iter_var.clone());
        self.scope.extend(part.iter_var2.clone());
        self.scope.push(part.accu_var.clone());
        self.macros.push(Around { variable: part.iter_var.clone(), rounds });
        body.into_iter().try_for_each(|part| self.look(part, depth))?;
        self.macros.pop();
        self.scope.truncate(before);
        Ok(())
    }

    /// How often a macro over this goes round.
    fn rounds(&self, range: &IdedExpr) -> Rounds {
        let outer = self.macros.last();
        let known = match &range.expr {
            Expr::List(list) => Some(list.elements.len()),
            Expr::Map(map) => Some(map.entries.len()),
            Expr::Literal(_)
            | Expr::Ident(_)
            | Expr::Select(_)
            | Expr::Call(_)
            | Expr::Comprehension(_)
            | Expr::Struct(_)
            | Expr::Unspecified => None,
        };
        let own = known.map_or(Rounds::OF_DATA, Rounds::known);
        let Some(outer) = outer else { return own };
        let is_of_all = mentions(range, &|name| VARIABLES.contains(&name));
        if known.is_none() && !is_of_all { outer.rounds.inner() } else { outer.rounds.times(own) }
    }

    fn variable(&self, name: &str) -> Result<(), Broken> {
        if VARIABLES.contains(&name) || self.scope.iter().any(|known| known == name) {
            return Ok(());
        }
        let why = format!("there is no `{name}`: an expression knows type, attributes and data");
        self.refuse(name, &why)
    }

    fn function(&mut self, name: &str, values: &[IdedExpr]) -> Result<(), Broken> {
        // A macro adds to its result by a sum as well.
        let is_result =
            |value: &IdedExpr| matches!(&value.expr, Expr::Ident(name) if name == RESULT);
        if name == "_+_" && !values.first().is_some_and(is_result) {
            self.cost.sums += 1;
            if self.cost.sums > SUMS_MAX {
                return self.refuse("+", "there are too many sums");
            }
        }
        let is_known = |value: &IdedExpr| !mentions(value, &|_| true);
        if matches!(name, "_==_" | "_!=_" | "@in") && !values.iter().any(is_known) {
            self.comparisons += 1;
            if self.comparisons > COMPARISONS_MAX {
                let why =
                    format!("it compares values of an event more than {COMPARISONS_MAX} times");
                return self.refuse("", &why);
            }
        }
        let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let known = FUNCTIONS.join(", ");
        self.refuse(name, &format!("there is no function `{name}`; there are {known}"))
    }

    /// Refuses the expression for a word of it, or for all of it.
    fn refuse(&self, word: &str, why: &str) -> Result<(), Broken> {
        let is_part = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_';
        let stands_alone = |(at, _): &(usize, &str)| {
            let before = self.text.get(..*at).and_then(|text| text.chars().next_back());
            let after = self.text.get(at + word.len()..).and_then(|text| text.chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        };
        let found = Some(word).filter(|word| !word.is_empty());
        let found = found.and_then(|word| self.text.match_indices(word).find(stands_alone));
        let at = found.map_or(0, |(at, _)| at);
        Err(Broken::at(self.text, at, String::from(why)))
    }
}

/// Tells whether a macro makes a list: `map` and `filter` do.
fn makes_a_list(made: &ComprehensionExpr) -> bool {
    matches!(&made.accu_init.expr, Expr::List(_))
}

/// Tells whether a variable of some kind occurs in a part of an expression.
fn mentions(part: &IdedExpr, is_meant: &dyn Fn(&str) -> bool) -> bool {
    let any = |parts: &[&IdedExpr]| parts.iter().any(|part| mentions(part, is_meant));
    match &part.expr {
        Expr::Ident(name) => is_meant(name),
        Expr::Select(select) => mentions(&select.operand, is_meant),
        Expr::Call(call) => {
            let mut parts = call.target.as_deref().into_iter().chain(&call.args);
            parts.any(|part| mentions(part, is_meant))
        }
        Expr::List(list) => list.elements.iter().any(|part| mentions(part, is_meant)),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => any(&[&entry.key, &entry.value]),
            EntryExpr::StructField(field) => mentions(&field.value, is_meant),
        }),
        Expr::Comprehension(made) => any(&[
            &made.iter_range,
            &made.accu_init,
            &made.loop_cond,
            &made.loop_step,
            &made.result,
        ]),
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

impl Broken {
    /// The parser's words about a text.
    fn of(text: &str, errors: &ParseErrors) -> Self {
        let Some(error) = errors.errors.first() else {
            return Self::at(text, 0, String::from("it is not an expression"));
        };
        let place = |number: isize| usize::try_from(number).unwrap_or_default().max(1);
        let (line, column) = error.pos;
        Self { line: place(line), column: place(column), reason: shorten(&error.msg) }
    }

    /// Something is wrong at a byte of the text.
    fn at(text: &str, at: usize, reason: String) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line = before.split('\n').count();
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        Self { line, column, reason }
    }
}
