//! What asking an expression may cost, given what it is asked about: counted before it is asked.
//!
//! The evaluator copies what macros go over, what they give, sums, and whatever an error is about.
//! So the tree of the expression is gone through once, and for each part of it is added up how often
//! it is evaluated, and how much its values weigh at most, all rounds of the macros around it
//! together. The elements of a list weigh no more than the list, and so does what is within them:
//! only what is looked at again in each round is multiplied.

use cel::{
    Context, IdedExpr,
    common::{
        ast::{ComprehensionExpr, Expr, LiteralValue, operators},
        types::{CelInt, CelList, CelMap, CelString},
        value::{CowVal, Val},
    },
};

use super::check::{Made, VARIABLES, made, root};

/// The most steps of one evaluation: parts that are evaluated, and weight that is looked at.
pub(super) const STEPS_MAX: u64 = 8 << 20;

/// How much weight is looked at in the time of a step.
const WEIGHT_OF_STEP: u64 = 16;

/// What a value weighs beside its text, in bytes.
const WEIGHT_OF_VALUE: u64 = 64;

/// How often what a macro gathers is copied.
const COPIES: u64 = 3;

/// How large an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// The length of its data and attributes as text.
    pub(super) bytes: u64,
    /// The elements of its longest list or object.
    pub(super) longest: u64,
    /// The elements of all its lists and objects.
    pub(super) elements: u64,
}

/// The variable of a macro, all rounds together.
#[derive(Clone, Debug)]
struct Scope<'a> {
    variable: &'a str,
    /// How often the macro goes round.
    rounds: u64,
    /// How often it goes round for each round of the macro around it, at most.
    most: u64,
    /// How much the variable weighs.
    weight: u64,
    /// How many elements there are in what is within it.
    elements: u64,
}

/// Counts the steps of an expression.
struct Count<'a> {
    context: &'a Context<'a, 'a>,
    size: Size,
    scopes: Vec<Scope<'a>>,
    steps: u64,
}

impl Size {
    /// How much all of it weighs.
    fn weight(self) -> u64 {
        let values = self.elements.saturating_add(1).saturating_mul(WEIGHT_OF_VALUE);
        self.bytes.saturating_add(values)
    }
}

/// Returns how many steps asking an expression may take.
pub(super) fn steps<'a>(expression: &'a IdedExpr, context: &'a Context<'a, 'a>, size: Size) -> u64 {
    let mut count = Count { context, size, scopes: Vec::new(), steps: 0 };
    let result = count.weigh(expression, 1);
    count.look_at(result);
    count.steps
}

impl<'a> Count<'a> {
    /// Adds what weighs so much, all rounds together.
    fn look_at(&mut self, weight: u64) {
        self.steps = self.steps.saturating_add(weight / WEIGHT_OF_STEP);
    }

    /// Counts a part that is evaluated some times. Returns how much its values weigh together.
    fn weigh(&mut self, part: &'a IdedExpr, times: u64) -> u64 {
        self.steps = self.steps.saturating_add(times);
        let one_each = times.saturating_mul(WEIGHT_OF_VALUE);
        match &part.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                times.saturating_mul(WEIGHT_OF_VALUE.saturating_add(number(text.inner().len())))
            }
            Expr::Ident(name) => self.variable(name, part, times),
            Expr::Select(select) => {
                let whole = self.weigh(&select.operand, times);
                if select.test { one_each } else { self.measured(part, times).unwrap_or(whole) }
            }
            Expr::Call(call) => {
                let parts = call.target.as_deref().into_iter().chain(&call.args);
                self.call(part, &call.func_name, parts, times)
            }
            Expr::List(list) => {
                let all = list.elements.iter().map(|element| self.weigh(element, times));
                let all = all.fold(one_each, u64::saturating_add);
                self.look_at(all);
                all
            }
            Expr::Comprehension(part) => self.comprehension(part, times),
            Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => one_each,
        }
    }

    fn call(
        &mut self,
        whole: &'a IdedExpr,
        name: &str,
        parts: impl Iterator<Item = &'a IdedExpr>,
        times: u64,
    ) -> u64 {
        let parts: Vec<_> = parts.map(|part| (part, self.weigh(part, times))).collect();
        let all = parts.iter().map(|(_, weight)| *weight).fold(0, u64::saturating_add);
        let one_each = times.saturating_mul(WEIGHT_OF_VALUE);
        // Texts are compared up to the end of the shorter one, and other literals are short.
        let shorter = parts.iter().filter(|(part, _)| is_literal(part)).map(|(_, weight)| *weight);
        let looked_at = match (name, &*parts) {
            (operators::EQUALS | operators::NOT_EQUALS, _) => shorter.min().unwrap_or(all),
            (operators::IN, [_, (list, weight)]) if matches!(list.expr, Expr::List(_)) => *weight,
            (operators::CONDITIONAL, [(_, asked), ..]) => *asked,
            (operators::INDEX, [_, (_, index)]) => *index,
            _ => all,
        };
        self.look_at(looked_at);
        match (name, &*parts) {
            (operators::INDEX, [(_, of), _]) => self.measured(whole, times).unwrap_or(*of),
            (operators::ADD | operators::CONDITIONAL, _) => all,
            ("string", _) => all.saturating_add(one_each),
            _ => one_each,
        }
    }

    fn variable(&self, name: &str, part: &IdedExpr, times: u64) -> u64 {
        let whole = times.saturating_mul(self.size.weight());
        match self.scope(name) {
            Some((scope, again)) => scope.weight.saturating_mul(again),
            None if VARIABLES.contains(&name) => self.measured(part, times).unwrap_or(whole),
            // What a macro that gives no list gathers is a truth value, or a number.
            None => times.saturating_mul(WEIGHT_OF_VALUE),
        }
    }

    /// Finds the macro of a variable, and how often those within go round for each of its rounds.
    fn scope(&self, name: &str) -> Option<(&Scope<'a>, u64)> {
        let at = self.scopes.iter().rposition(|scope| scope.variable == name)?;
        let within = self.scopes.iter().skip(at + 1).map(|scope| scope.most);
        Some((self.scopes.get(at)?, within.fold(1, u64::saturating_mul)))
    }

    fn comprehension(&mut self, part: &'a ComprehensionExpr, times: u64) -> u64 {
        let scope = self.range(&part.iter_range, &part.iter_var, times);
        let (rounds, weight) = (scope.rounds, scope.weight);
        self.look_at(weight);
        self.scopes.push(scope);
        let given = if let Some(Made { guard, element }) = made(part) {
            if let Some(guard) = guard {
                self.weigh(guard, rounds);
            }
            self.weigh(element, rounds);
            self.look_at(weight.saturating_mul(COPIES));
            weight
        } else {
            self.weigh(&part.loop_cond, rounds);
            self.weigh(&part.loop_step, rounds);
            times.saturating_mul(WEIGHT_OF_VALUE)
        };
        self.scopes.pop();
        self.weigh(&part.accu_init, times);
        self.weigh(&part.result, times);
        given
    }

    /// How often a macro goes round over something, and how much that weighs.
    fn range(&mut self, range: &'a IdedExpr, variable: &'a str, times: u64) -> Scope<'a> {
        let size = self.size;
        let weight = self.weigh(range, times);
        let of = |range: Scope<'a>| Scope { variable, ..range };
        match &range.expr {
            Expr::List(list) => {
                let most = number(list.elements.len());
                let rounds = times.saturating_mul(most);
                Scope { variable, rounds, most, weight, elements: 0 }
            }
            // What `map` and `filter` give has no more elements than what they go over, and weighs
            // no more. That was counted just now.
            Expr::Comprehension(part) => {
                let steps = self.steps;
                let inner = self.range(&part.iter_range, variable, times);
                self.steps = steps;
                of(inner)
            }
            Expr::Literal(_)
            | Expr::Ident(_)
            | Expr::Select(_)
            | Expr::Call(_)
            | Expr::Map(_)
            | Expr::Struct(_)
            | Expr::Unspecified => {
                let outer = root(range).and_then(|name| self.scope(name));
                if let Some((scope, again)) = outer {
                    let elements = scope.elements.saturating_mul(again);
                    let rounds = elements.min(times.saturating_mul(size.longest));
                    return Scope { variable, rounds, most: size.longest, weight, elements };
                }
                let most = self.find(range).map_or(size.longest, |value| length(value.as_ref()));
                let rounds = times.saturating_mul(most);
                let elements = times.saturating_mul(size.elements);
                Scope { variable, rounds, most, weight, elements }
            }
        }
    }

    /// How much the value of a plain selection of the event weighs, if it is known.
    fn measured(&self, part: &IdedExpr, times: u64) -> Option<u64> {
        let found = self.find(part)?;
        let value: &dyn Val = found.as_ref();
        let weight = if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            WEIGHT_OF_VALUE.saturating_add(number(text.inner().len()))
        } else if is_list(value) || is_map(value) {
            self.size.weight()
        } else {
            WEIGHT_OF_VALUE
        };
        Some(times.saturating_mul(weight))
    }

    /// Looks up a plain selection of the event: `data.a.b`, `data['a'][0]`.
    fn find(&self, part: &IdedExpr) -> Option<CowVal<'a, 'a>> {
        let mut keys = Vec::new();
        let mut part = part;
        let mut value = loop {
            match &part.expr {
                Expr::Ident(name) if VARIABLES.contains(&name.as_str()) => {
                    break self.context.get_variable(name)?;
                }
                Expr::Select(select) if !select.test => {
                    keys.push(Key::Field(&select.field));
                    part = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX => {
                    let [of, index] = &*call.args else { return None };
                    keys.push(Key::of(index)?);
                    part = of;
                }
                Expr::Ident(_)
                | Expr::Select(_)
                | Expr::Call(_)
                | Expr::Literal(_)
                | Expr::List(_)
                | Expr::Map(_)
                | Expr::Comprehension(_)
                | Expr::Struct(_)
                | Expr::Unspecified => return None,
            }
        };
        for key in keys.into_iter().rev() {
            let CowVal::Borrowed(container) = value else { return None };
            value = key.of_container(container)?;
        }
        Some(value)
    }
}

/// A step of a plain selection.
enum Key<'a> {
    Field(&'a str),
    Index(i64),
}

impl<'a> Key<'a> {
    fn of(index: &'a IdedExpr) -> Option<Self> {
        let Expr::Literal(index) = &index.expr else { return None };
        if let LiteralValue::String(name) = index {
            Some(Self::Field(name.inner()))
        } else if let LiteralValue::Int(index) = index {
            Some(Self::Index(*index.inner()))
        } else {
            None
        }
    }

    fn of_container<'v>(&self, container: &'v dyn Val) -> Option<CowVal<'v, 'v>> {
        let container = container.as_indexer()?;
        match self {
            Self::Field(name) => container.get(&CelString::from(*name)).ok(),
            Self::Index(index) => container.get(&CelInt::from(*index)).ok(),
        }
    }
}

fn is_literal(part: &IdedExpr) -> bool {
    matches!(&part.expr, Expr::Literal(_) | Expr::List(_))
}

fn is_list(value: &dyn Val) -> bool {
    value.downcast_ref::<CelList<'_>>().is_some()
}

fn is_map(value: &dyn Val) -> bool {
    value.downcast_ref::<CelMap<'_>>().is_some()
}

/// How many elements a list or an object has. Macros go over nothing else.
fn length(value: &dyn Val) -> u64 {
    if is_list(value) || is_map(value) {
        let size = value.as_sizer().map(|sizer| *sizer.size().inner());
        size.and_then(|size| u64::try_from(size).ok()).unwrap_or(u64::MAX)
    } else {
        0
    }
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
