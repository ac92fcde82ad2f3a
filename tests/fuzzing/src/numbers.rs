//! ECMAScript's form of numbers: for every double, and for every way to write a number.
//!
//! Checked against the digits that Rust's own formatting finds, put together by the rules of ECMA-262
//! (`Number::toString`), and against a comparison of decimal numbers digit by digit.

use fanfare_domain::json::{Limits, check};

use crate::input::{take, text};

/// A decimal number: whether it is negative, its digits without zeros at either end, and the power
/// of ten that the last of them counts. Equal if and only if the numbers are.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    power: i128,
}

/// Reads an input as the bits of a double, and as a number that somebody has written.
pub fn run(input: &[u8]) {
    let mut bits = input;
    double(f64::from_bits(u64::from_be_bytes(take(&mut bits))));
    if let Some(text) = text(input) {
        text.lines().take(64).for_each(written);
    }
}

/// Every double has a form that is carried, and is that double again.
fn double(double: f64) {
    if !double.is_finite() {
        return;
    }
    let expected = to_string(double);
    assert_eq!(form(&expected), Some(Ok(expected.clone())), "the form of {double:e}");
    let read: f64 = expected.parse().expect("a form is a number");
    assert!(read.to_bits() == double.to_bits() || (read == 0.0 && double == 0.0), "{expected}");
    for literal in [format!("{double:e}"), format!("{double:E}"), format!("{double}")] {
        written(&literal);
    }
}

/// What was written is carried if and only if the double's form is the same number.
fn written(literal: &str) {
    let Some(form) = form(literal) else { return };
    let value = decimal(literal).expect("what the checker takes is a number");
    let double: f64 = literal.parse().expect("JSON's numbers are Rust's");
    let is_kept = double.is_finite() && decimal(&to_string(double)) == Some(value);
    match form {
        Ok(form) => {
            assert!(is_kept, "{literal} became {form}");
            assert_eq!(form, to_string(double), "{literal}");
        }
        Err(form) => assert!(!is_kept, "{literal} was refused for {form}"),
    }
}

/// Returns our form of a number: what is sent, or what it would have become; `None` if it is none.
fn form(literal: &str) -> Option<Result<String, String>> {
    let is_digit = |symbol: char| symbol.is_ascii_digit();
    if !literal.trim_start_matches('-').starts_with(is_digit) || !literal.ends_with(is_digit) {
        return None;
    }
    let checked = check(literal.as_bytes(), &Limits::default()).ok()?;
    let mut out = String::new();
    let carried = checked.ecmascript(&mut out);
    Some(carried.map(|()| out).map_err(|refused| refused.becomes))
}

/// ECMA-262, section 6.1.6.1.20, from the digits of the shortest form.
fn to_string(double: f64) -> String {
    if double == 0.0 {
        return String::from("0");
    }
    let shortest = format!("{:e}", double.abs());
    let (mantissa, power) = shortest.split_once('e').expect("this is the form with a power");
    let digits = nearest(double.abs(), mantissa.replace('.', ""));
    let count = i32::try_from(digits.len()).expect("there are 17 digits at most");
    // The value is 0.digits times ten to the power of this.
    let point = power.parse::<i32>().expect("a power is a number") + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let text = if count <= point && point <= 21 {
        format!("{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
        format!("{whole}.{fraction}")
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let sign = if point > 0 { '+' } else { '-' };
        let power = (point - 1).abs();
        match digits.split_at(1) {
            (digit, "") => format!("{digit}e{sign}{power}"),
            (digit, rest) => format!("{digit}.{rest}e{sign}{power}"),
        }
    };
    if double < 0.0 { format!("-{text}") } else { text }
}

/// Of two shortest forms that are equally near, ECMAScript takes the even one, and Rust the greater.
fn nearest(double: f64, digits: String) -> String {
    // No double has more digits.
    let exact = format!("{double:.780e}").replace('.', "");
    let Some((lower, rest)) = exact.split_at_checked(digits.len()) else { return digits };
    let rest = rest.split('e').next().unwrap_or_default();
    let is_between = rest.trim_end_matches('0') == "5";
    let is_even = lower.ends_with(['0', '2', '4', '6', '8']);
    let same = |digits: &str| {
        let (first, rest) = digits.split_at(1);
        let power = exact.split_once('e').map_or("0", |(_, power)| power);
        format!("{first}.{rest}e{power}").parse() == Ok(double)
    };
    if is_between && is_even && same(lower) { String::from(lower) } else { digits }
}

/// Reads a decimal number; `None` if it is none.
fn decimal(text: &str) -> Option<Decimal> {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, power) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, "0"),
    };
    let fraction = mantissa.find('.').map_or(0, |at| mantissa.len() - at - 1);
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    digits.truncate(digits.len() - zeros);
    let digits = String::from(digits.trim_start_matches('0'));
    if digits.is_empty() {
        return Some(Decimal { is_negative: false, digits, power: 0 });
    }
    // A power that is beyond all measure is that of no double.
    let limit = if power.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 };
    let power = power.parse::<i128>().unwrap_or(limit);
    let shift = i128::try_from(zeros).ok()? - i128::try_from(fraction).ok()?;
    Some(Decimal { is_negative, digits, power: power.saturating_add(shift) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_standard_are_followed() {
        for (double, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (1e21, "1e+21"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (5e-324, "5e-324"),
            (16.192_214_965_820_313, "16.192214965820312"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(to_string(double), expected);
        }
        assert_eq!(decimal("-1.50e2"), decimal("-150"));
        assert_ne!(decimal("1.5"), decimal("15"));
        assert_eq!(decimal("0e9"), decimal("-0.0"));
    }
}
