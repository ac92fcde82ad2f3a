//! Secrets in the form in which requests carry them: erased like any other once nobody has them.

use bytes::Bytes;
use fanfare_domain::seal::Clear;
use http::HeaderValue;

/// A secret whose bytes are lent out.
struct Erased(Clear);

impl AsRef<[u8]> for Erased {
    fn as_ref(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// Returns the bytes of a secret. They are erased with the last of their clones.
pub(crate) fn bytes(secret: Clear) -> Bytes {
    Bytes::from_owner(Erased(secret))
}

/// Returns a secret as the value of a header, which does not show. None if it cannot be one.
pub(crate) fn secret_header(secret: Clear) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(bytes(secret)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_lent_out_and_not_copied() {
        let secret = Clear::new(String::from("s3cret-of-ours"));
        let place = secret.expose().as_ptr();
        let value = secret_header(secret).unwrap();
        let clone = value.clone();
        assert_eq!(clone.as_bytes().as_ptr(), place);
        assert_eq!(value, "s3cret-of-ours");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn what_would_split_a_request_is_no_header() {
        assert!(secret_header(Clear::new(String::from("a\r\nx: y"))).is_none());
    }
}
