//! The user that a URL names: the client knows the parts and does not use them.

use async_nats::{ConnectOptions, ServerAddr};

/// Logs in as the user of the first address that names one.
pub(crate) fn log_in(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    let named =
        addresses.iter().find_map(|address| Some((address.username()?, address.password())));
    match named {
        Some((user, Some(password))) => options.user_and_password(decoded(user), decoded(password)),
        // As other clients have it, a user without a password is a token.
        Some((token, None)) => options.token(decoded(token)),
        None => options,
    }
}

/// Takes percent-encoding away. What it does not make into text stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let mut digit = || ahead.next().and_then(|digit| char::from(digit).to_digit(16));
        match (byte, digit(), digit()) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = ahead;
            }
            (_, _, _) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_had_to_encode_is_decoded() {
        for (text, expected) in [
            ("plain", "plain"),
            ("p%40ss%3Aw%2ford", "p@ss:w/ord"),
            ("%C3%A9", "é"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%ff", "%ff"),
        ] {
            assert_eq!(decoded(text), expected);
        }
    }
}
