//! JSON without insignificant white space.

use super::token::{is_blank, text_length};

/// Appends `text` without the white space outside its strings.
pub(super) fn write(text: &str, out: &mut String) {
    out.reserve(text.len());
    let bytes = text.as_bytes();
    // Everything from `kept` to `at` is to be copied; white space ends such a run.
    let (mut kept, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += 2 + bytes.get(at + 1..).map_or(0, text_length),
            blank if is_blank(*blank) => {
                out.push_str(text.get(kept..at).unwrap_or_default());
                at += 1;
                kept = at;
            }
            _ => at += 1,
        }
    }
    out.push_str(text.get(kept..).unwrap_or_default());
}
