//! What vendors say of a trace: the header `tracestate` (W3C Trace Context, section 3.3).

use std::collections::BTreeSet;

/// The most bytes that are kept. What is longer is dropped whole, as the standard allows.
const BYTES_MAX: usize = 512;
/// The most members of a list.
const MEMBERS_MAX: usize = 32;
/// The longest key, and the longest value, in bytes.
const PART_MAX: usize = 256;
/// The longest name of a tenant and of a system, where a key has both.
const TENANT_MAX: usize = 241;
const SYSTEM_MAX: usize = 14;

/// Reads the lines of a header, in their order, as one list without the space between its members;
/// empty if any of it is malformed.
pub(super) fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    list(lines).unwrap_or_default()
}

fn list<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (mut kept, mut keys) = (String::new(), BTreeSet::new());
    let members = lines.into_iter().flat_map(|line| line.split(','));
    for member in members.map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || !keys.insert(key) || keys.len() > MEMBERS_MAX {
            return None;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(member);
        if kept.len() > BYTES_MAX {
            return None;
        }
    }
    Some(kept)
}

/// A key may begin with a digit, as later versions of the standard say.
fn is_key(key: &str) -> bool {
    let is_head = |first: char| first.is_ascii_lowercase() || first.is_ascii_digit();
    let is_part = |text: &str, max| text.len() <= max && text.starts_with(is_head) && is_word(text);
    match key.split_once('@') {
        None => is_part(key, PART_MAX),
        Some((tenant, system)) => is_part(tenant, TENANT_MAX) && is_part(system, SYSTEM_MAX),
    }
}

fn is_word(text: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
    text.bytes().all(is_part)
}

/// Space is part of a value, but at its end.
fn is_value(value: &str) -> bool {
    let is_part = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    (1..=PART_MAX).contains(&value.len()) && value.bytes().all(is_part) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_list_is_kept_without_the_space_between_its_members() {
        for (lines, kept) in [
            (&[][..], ""),
            (&["a=b"], "a=b"),
            (
                &["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"],
                "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            ),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&[" \t a=1 , ,\tb=2,, "], "a=1,b=2"),
            (&["0a@b1=x y~!"], "0a@b1=x y~!"),
            (&["a_-*/9=x"], "a_-*/9=x"),
        ] {
            assert_eq!(read(lines.iter().copied()), kept, "{lines:?}");
        }
    }

    #[test]
    fn of_a_malformed_list_nothing_is_kept() {
        for line in [
            "hello world",
            "a",
            "a=",
            "=b",
            "A=b",
            "_a=b",
            "a=b=c",
            "a=b,a=c",
            "a b=c",
            "é=b",
            "a=é",
            "a=b,hello",
            "@b=c",
            "a@=c",
            "a@_b=c",
            "a@b@c=d",
            "a=\u{7f}",
            "a=\tb",
        ] {
            assert_eq!(read([line]), "", "{line}");
        }
    }

    #[test]
    fn lists_and_their_parts_have_limits() {
        let members =
            |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>();
        for (count, is_kept) in [(32, true), (33, false)] {
            assert_eq!(!read([&*members(count).join(",")]).is_empty(), is_kept, "{count}");
        }
        for (key, value, is_kept) in
            [(256, 1, true), (257, 1, false), (1, 256, true), (1, 257, false)]
        {
            let member = format!("{}={}", "k".repeat(key), "v".repeat(value));
            assert_eq!(!read([&*member]).is_empty(), is_kept, "{key} {value}");
        }
        for (tenant, system, is_kept) in [(241, 14, true), (242, 14, false), (241, 15, false)] {
            let member = format!("{}@{}=v", "t".repeat(tenant), "s".repeat(system));
            assert_eq!(!read([&*member]).is_empty(), is_kept, "{tenant} {system}");
        }
        let long = |last| format!("a={},b={}", "v".repeat(255), "v".repeat(last));
        assert_eq!(read([&*long(252)]).len(), 512);
        assert_eq!(read([&*long(253)]), "");
    }
}
