//! Numbers in ECMAScript's form.

/// The longest integer, in digits, of which every one is exact in a double.
const EXACT_DIGITS: usize = 15;

/// Returns how ECMAScript writes the number, if that denotes the same decimal value; otherwise
/// what it would become.
pub(super) fn ecmascript<'a>(
    literal: &'a str,
    buffer: &'a mut ryu_js::Buffer,
) -> Result<&'a str, &'a str> {
    if is_plain(literal) {
        return Ok(literal);
    }
    // The grammar of JSON numbers is a part of that of Rust's, which rounds correctly.
    let double: f64 = literal.parse().unwrap_or(f64::NAN);
    let form = buffer.format(double);
    let same = double.is_finite() && Decimal::of(literal).is_some_and(|it| it.equals(form));
    if same { Ok(form) } else { Err(form) }
}

/// Tells whether the literal is a small integer: written as ECMAScript does, and exact.
fn is_plain(literal: &str) -> bool {
    let digits = literal.strip_prefix('-').unwrap_or(literal);
    (1..=EXACT_DIGITS).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && literal != "-0"
}

/// A decimal number, in parts that are equal if and only if the numbers are.
struct Decimal<'a> {
    negative: bool,
    /// The digits without leading and trailing zeros, in two pieces.
    digits: (&'a str, &'a str),
    /// The power of ten that the last digit counts.
    power: i64,
}

impl<'a> Decimal<'a> {
    /// Reads a number; `None` if its power of ten is beyond all measure.
    fn of(text: &'a str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let (whole, fraction, scale) = if fraction.is_empty() {
            let trimmed = whole.trim_end_matches('0');
            (trimmed, "", i64::try_from(whole.len() - trimmed.len()).ok()?)
        } else {
            let scale = -i64::try_from(fraction.len()).ok()?;
            let fraction =
                if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
            (whole, fraction, scale)
        };
        if whole.is_empty() && fraction.is_empty() {
            return Some(Self { negative: false, digits: ("", ""), power: 0 });
        }
        let power = exponent.parse::<i64>().ok()?.checked_add(scale)?;
        Some(Self { negative, digits: (whole, fraction), power })
    }

    fn equals(&self, text: &str) -> bool {
        Decimal::of(text).is_some_and(|other| {
            self.negative == other.negative
                && self.power == other.power
                && self.bytes().eq(other.bytes())
        })
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.digits.0.bytes().chain(self.digits.1.bytes())
    }
}
