//! What an expression may be made of, so that asking it costs little.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{
    IdedExpr, ParseErrors, Program,
    common::ast::{ComprehensionExpr, Expr, operators},
};

use super::{Broken, Condition, shorten};

/// The variables of an expression.
pub(super) const VARIABLES: [&str; 3] = ["type", "attributes", "data"];

/// What macros gather in: nobody can write such a name.
const RESULT: &str = "@result";

/// The functions of an expression, besides operators and macros.
const FUNCTIONS: [&str; 8] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string"];

/// The operators of an expression, as the parser calls them.
const OPERATORS: [&str; 19] = [
    operators::ADD,
    operators::CONDITIONAL,
    operators::DIVIDE,
    operators::EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::INDEX,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::LOGICAL_AND,
    operators::LOGICAL_NOT,
    operators::LOGICAL_OR,
    operators::MODULO,
    operators::MULTIPLY,
    operators::NEGATE,
    operators::NOT_EQUALS,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
];

/// How many brackets may be open at once: the parser works its way into them by recursion.
const BRACKETS_MAX: usize = 24;

/// How deep the tree of an expression may be: so do we, and so does evaluating it.
const DEPTH_MAX: usize = 48;

/// How many macros may be within one another: each multiplies the iterations.
const MACROS_MAX: usize = 2;

/// How many sums may be in an expression: each can copy a list or a text as large as the data.
const SUMS_MAX: usize = 16;

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Program, Broken> {
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
    let mut check = Check { text, scope: Vec::new(), macros: 0, sums: 0 };
    check.look(program.expression(), 0)?;
    Ok(program)
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
    /// How many macros are around it.
    macros: usize,
    sums: usize,
}

/// What `map` and `filter` do in each round.
pub(super) struct Made<'a> {
    /// What has to hold for an element to be taken.
    pub(super) guard: Option<&'a IdedExpr>,
    /// What is taken.
    pub(super) element: &'a IdedExpr,
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
            Expr::List(list) if list.elements.iter().all(is_literal) => Ok(()),
            Expr::List(_) => {
                self.refuse("", "a list is made of texts, numbers, true and false only")
            }
            Expr::Map(_) => self.refuse("", "an object cannot be made here"),
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
        if self.macros >= MACROS_MAX {
            let why = "only two macros (all, exists, filter, map) can be within one another";
            return self.refuse("", why);
        }
        if VARIABLES.contains(&part.iter_var.as_str()) || part.iter_var2.is_some() {
            return self.refuse("", "the variable of a macro needs a name of its own");
        }
        self.range(&part.iter_range, depth)?;
        let before = self.scope.len();
        self.scope.push(part.iter_var.clone());
        self.macros += 1;
        if makes_a_list(part) {
            self.gathering(part, depth)?;
        } else {
            self.scope.push(part.accu_var.clone());
            let body = [&part.loop_cond, &part.loop_step, &part.result];
            body.into_iter().try_for_each(|part| self.look(part, depth))?;
        }
        self.macros -= 1;
        self.scope.truncate(before);
        Ok(())
    }

    /// Macros go over a part of the event, a list as it is written, or what one other `map` or
    /// `filter` gives of these: so nothing grows from one macro to the next.
    fn range(&mut self, range: &IdedExpr, depth: usize) -> Result<(), Broken> {
        let source = if let Expr::Comprehension(made) = &range.expr
            && makes_a_list(made)
        {
            &made.iter_range
        } else {
            range
        };
        if !(is_selection(source) || matches!(&source.expr, Expr::List(_))) {
            let why = "a macro goes over a part of the event (data.a.b), a list of literals, or what one map or filter gives of these";
            return self.refuse("", why);
        }
        self.look(range, depth)
    }

    /// Looks at what `map` or `filter` takes: a part of each element, and never anything new.
    fn gathering(&mut self, part: &ComprehensionExpr, depth: usize) -> Result<(), Broken> {
        let taken = made(part);
        let taken = taken.filter(|taken| {
            is_selection(taken.element) && root(taken.element) == Some(part.iter_var.as_str())
        });
        let Some(Made { guard, element }) = taken else {
            return self.refuse("map", "map gives a part of each element: list.map(a, a.b)");
        };
        self.look(element, depth)?;
        guard.map_or(Ok(()), |guard| self.look(guard, depth))
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
        if name == operators::ADD && !values.first().is_some_and(is_result) {
            self.sums += 1;
            if self.sums > SUMS_MAX {
                return self.refuse("+", "there are too many sums");
            }
        }
        if OPERATORS.contains(&name) || FUNCTIONS.contains(&name) {
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

/// Returns what `map` or `filter` does in each round; `None` of any other macro.
pub(super) fn made(part: &ComprehensionExpr) -> Option<Made<'_>> {
    if !makes_a_list(part) {
        return None;
    }
    let element = |step| match call(step, operators::ADD)? {
        [_, list] => {
            let Expr::List(list) = &list.expr else { return None };
            list.elements.first()
        }
        _ => None,
    };
    match call(&part.loop_step, operators::CONDITIONAL) {
        Some([guard, step, _]) => Some(Made { guard: Some(guard), element: element(step)? }),
        Some(_) => None,
        None => Some(Made { guard: None, element: element(&part.loop_step)? }),
    }
}

fn call<'a>(part: &'a IdedExpr, name: &str) -> Option<&'a [IdedExpr]> {
    let Expr::Call(call) = &part.expr else { return None };
    (call.func_name == name).then_some(&*call.args)
}

/// Tells whether it is a text, a number, or the like.
fn is_literal(part: &IdedExpr) -> bool {
    let is_scalar = |part: &IdedExpr| matches!(&part.expr, Expr::Literal(_));
    let negated = call(part, operators::NEGATE).and_then(|parts| parts.first());
    is_scalar(part) || negated.is_some_and(is_scalar)
}

/// Tells whether it selects a part of a variable: `data.a`, `data['a'][0]`.
fn is_selection(part: &IdedExpr) -> bool {
    root(part).is_some()
}

/// The variable that a selection begins with.
pub(super) fn root(part: &IdedExpr) -> Option<&str> {
    if let Expr::Ident(name) = &part.expr {
        return Some(name);
    }
    if let Expr::Select(select) = &part.expr {
        return if select.test { None } else { root(&select.operand) };
    }
    match call(part, operators::INDEX)? {
        [of, index] if is_literal(index) => root(of),
        _ => None,
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
