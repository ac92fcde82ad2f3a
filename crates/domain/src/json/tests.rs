//! What is JSON to us, and what becomes of it.

use proptest::prelude::*;

use super::*;

fn checked(text: &str) -> Result<Checked<'_>, Refused> {
    check(text.as_bytes(), &Limits::default())
}

fn compact(text: &str) -> String {
    let mut out = String::new();
    Json::parse(text.as_bytes()).unwrap().compact(&mut out);
    out
}

fn ecmascript(text: &str) -> Result<String, NumberNotCarried> {
    let mut out = String::new();
    checked(text).unwrap().ecmascript(&mut out).map(|()| out)
}

#[test]
fn malformed_texts_are_refused_with_their_place() {
    for (text, line, column) in [
        ("", 1, 0),
        ("{\"a\":1,}", 1, 8),
        ("[1,\n 2,,]", 2, 4),
        ("{} {}", 1, 4),
        ("01", 1, 2),
        ("\"a\nb\"", 1, 2),
        ("{'a':1}", 1, 2),
        ("[1 2]", 1, 4),
        ("nulL", 1, 4),
        ("\"\\x\"", 1, 3),
        ("\"\\u12g4\"", 1, 7),
        ("[1.]", 1, 4),
        ("NaN", 1, 1),
        ("\u{feff}{}", 1, 1),
    ] {
        match checked(text) {
            Err(Refused::Malformed(Malformed::NotJson { line: at_line, column: at, reason })) => {
                assert_eq!((at_line, at), (line, column), "{text:?}: {reason}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_place() {
    for (bytes, place) in [(&b"\"\xff\""[..], 1), (b"\"a\xed\xa0\x80\"", 2), (b"\"\xc0\x80\"", 1)] {
        let refused = Err(Refused::Malformed(Malformed::NotUtf8 { at: place }));
        assert_eq!(check(bytes, &Limits::default()), refused);
    }
}

#[test]
fn a_text_has_limits_of_size_and_depth() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(checked(&nested(126)).unwrap().depth, 126);
    let too_deep = |at: &str| at == "/0".repeat(126);
    assert!(
        matches!(checked(&nested(127)), Err(Refused::TooDeep { max: 126, at }) if too_deep(at.as_str()))
    );
    assert!(matches!(checked(&nested(10_000)), Err(Refused::TooDeep { .. })));
    assert_eq!(checked("[{},[],{\"a\":[1]}]").unwrap().depth, 3);
    let limits = Limits { bytes_max: 4, depth_max: 1 };
    assert!(check(b"[12]", &limits).is_ok());
    assert_eq!(check(b"[123]", &limits), Err(Refused::TooLarge { length: 5, max: 4 }));
    // What is at the limit still parses where the body, one deeper, is received.
    assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(128)).is_err());
}

#[test]
fn duplicate_keys_are_found_however_they_are_written() {
    for (text, pointer) in [
        (r#"{"a":1,"a":2}"#, "/a"),
        (r#"{"a":1,"b":{"c":[0,{"d":1,"e":2,"d":3}]}}"#, "/b/c/1/d"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"é":1,"\u00e9":2}"#, "/é"),
        (r#"{"😀":1,"\ud83d\uDE00":2}"#, "/😀"),
        (r#"{"\ud83d":1,"\uD83D":2}"#, r"/\ud83d"),
        (r#"{"/":1,"\/":2}"#, "/~1"),
        (r#"{"":{"~":1,"~":1}}"#, "//~0"),
        (r#"[{"x":{}},{"\n":1,"k":2,"\u000A":3}]"#, r"/1/\n"),
    ] {
        match checked(text) {
            Err(Refused::DuplicateKey { at }) => assert_eq!(at.as_str(), pointer, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in [
        r#"{"a":{"a":{"a":1}}}"#,
        r#"[{"a":1},{"a":1}]"#,
        r#"{"a":1,"A":2,"a ":3}"#,
        r#"{"a":"a","b":"a"}"#,
    ] {
        assert!(checked(text).is_ok(), "{text}");
    }
}

#[test]
fn lone_surrogates_are_noted() {
    for (text, lone) in [
        (r#""\ud800""#, true),
        (r#"{"\udc00":1}"#, true),
        (r#"["\ud800\ud800\udc00"]"#, true),
        (r#""\ud83d\ude00""#, false),
        (r#""\\ud800""#, false),
        (r#""\u0041""#, false),
        ("\"😀\"", false),
    ] {
        assert_eq!(checked(text).unwrap().lone_surrogates, lone, "{text}");
    }
}

#[test]
fn a_long_pointer_is_shown_in_part() {
    let text = format!("{{\"{0}\":1,\"{0}\":2}}", "é".repeat(1_000));
    let Err(refused) = checked(&text) else { panic!("admitted") };
    assert!(refused.to_string().chars().count() < 320, "{refused}");
    assert_eq!(checked("[[[[1]]]]").map(|checked| checked.depth), Ok(4));
}

#[test]
fn compact_keeps_all_but_white_space() {
    for (text, expected) in [
        (
            " { \"a\" : [ 1.50 , -0 , 1e400 ] ,\r\n\t\"b c\" : \" d \\\" e \" } ",
            r#"{"a":[1.50,-0,1e400],"b c":" d \" e "}"#,
        ),
        ("12345678901234567890", "12345678901234567890"),
        (r#""\ud800 \u00e9 \/""#, r#""\ud800 \u00e9 \/""#),
        (" null ", "null"),
        (r#"["\\"]"#, r#"["\\"]"#),
        ("\"é \u{2028} 😀\"", "\"é \u{2028} 😀\""),
    ] {
        assert_eq!(compact(text), expected);
    }
}

#[test]
fn numbers_take_ecmascripts_form() {
    for (text, expected) in [
        ("98.50", "98.5"),
        ("1e3", "1000"),
        ("0.10", "0.1"),
        ("-0", "0"),
        ("-0.0e5", "0"),
        ("0e99999999999999999999", "0"),
        ("1E21", "1e+21"),
        ("100000000000000000000", "100000000000000000000"),
        ("1000000000000000000000", "1e+21"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-1.5e-10", "-1.5e-10"),
        ("9007199254740991", "9007199254740991"),
        ("12345678901234567000", "12345678901234567000"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("1230e-1", "123"),
        ("999999999999999", "999999999999999"),
        ("-7", "-7"),
    ] {
        assert_eq!(ecmascript(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn numbers_that_would_change_are_refused_with_their_place() {
    for (text, becomes) in [
        ("12345678901234567890", "12345678901234567000"),
        ("9007199254740993", "9007199254740992"),
        ("1e400", "Infinity"),
        ("-1e400", "-Infinity"),
        ("1e-400", "0"),
        ("1e99999999999999999999", "Infinity"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("3.141592653589793238", "3.141592653589793"),
    ] {
        let refused = ecmascript(&format!("{{\"a\":[0,{text}]}}")).unwrap_err();
        assert_eq!((refused.at.as_str(), refused.literal.as_str()), ("/a/1", text));
        assert_eq!(refused.becomes, becomes);
    }
    let long = format!("0.{}1", "0".repeat(100_000));
    assert_eq!(ecmascript(&long).unwrap_err().literal.len(), 64);
}

#[test]
fn keys_take_ecmascripts_order() {
    for (text, expected) in [
        (r#"{"b":1,"10":2,"a":3,"9":4}"#, r#"{"9":4,"10":2,"b":1,"a":3}"#),
        (r#"{"01":1,"-1":2,"1.0":3,"1":4}"#, r#"{"1":4,"01":1,"-1":2,"1.0":3}"#),
        (r#"{"4294967295":1,"4294967294":2}"#, r#"{"4294967294":2,"4294967295":1}"#),
        (
            r#"{"x":{"2":[],"1":{"b":0,"0":0}},"\u0030":"z"}"#,
            r#"{"0":"z","x":{"1":{"0":0,"b":0},"2":[]}}"#,
        ),
        (r#"{"__proto__":{"7":1},"1":2}"#, r#"{"1":2,"__proto__":{"7":1}}"#),
        (r#"{"1":1,"2":2,"a":3}"#, r#"{"1":1,"2":2,"a":3}"#),
        ("{}", "{}"),
        ("[{},[]]", "[{},[]]"),
    ] {
        assert_eq!(ecmascript(text).as_deref(), Ok(expected));
    }
}

#[test]
fn strings_take_ecmascripts_escapes() {
    for (text, expected) in [
        (r#""\u0041\/\u00e9\u007f\u2028""#, "\"A/é\u{7f}\u{2028}\""),
        (
            r#""\u0008\u000c\u000A\u000d\u0009\u0000\u001F\u0022\u005c""#,
            r#""\b\f\n\r\t\u0000\u001f\"\\""#,
        ),
        (r#""\uD83D\uDE00""#, "\"😀\""),
        (r#""\uD800x\uDFFF""#, r#""\ud800x\udfff""#),
        (r#""\uDE00\uD83D""#, r#""\ude00\ud83d""#),
        (r#""\uD83D\uD83D\uDE00""#, "\"\\ud83d😀\""),
        (r#""\uD83D\u0041""#, r#""\ud83dA""#),
        (r#""\\uD83D""#, r#""\\uD83D""#),
    ] {
        assert_eq!(ecmascript(text).as_deref(), Ok(expected));
    }
}

/// JSON text with white space, escapes and numbers of many forms.
fn any_json() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,16})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?";
    let string = r#""([a-c ]|é|\\u00[0-7][0-9a-f]|\\u[dD][8-9a-f]00|\\n){0,5}""#;
    let leaf = prop_oneof![number, string, Just(String::from("true")), Just(String::from("null"))];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = r#""([0-9]{1,3}|[a-z]{0,3}|\\u003[0-9])""#;
        let blank = "[ \n\t\r]{0,2}";
        let member = (blank, key, inner.clone()).prop_map(|(b, k, v)| format!("{b}{k}{b}:{v}{b}"));
        prop_oneof![
            (blank, prop::collection::vec(inner, 0..5))
                .prop_map(|(b, items)| format!("[{b}{}{b}]", items.join(&format!("{b},")))),
            prop::collection::vec(member, 0..5)
                .prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn compact_changes_nothing_but_white_space(text in any_json()) {
        let small = compact(&text);
        prop_assert!(Json::parse(small.as_bytes()).is_ok());
        prop_assert_eq!(&compact(&small), &small);
        let solid = |text: &str| text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
        prop_assert_eq!(solid(&text), solid(&small));
        prop_assert_eq!(checked(&text).is_ok(), checked(&small).is_ok());
    }

    #[test]
    fn ecmascripts_form_is_its_own_and_says_the_same(text in any_json()) {
        let Ok(checked) = checked(&text) else { return Ok(()) };
        let mut form = String::new();
        if checked.ecmascript(&mut form).is_err() { return Ok(()) }
        prop_assert_eq!(ecmascript(&form), Ok(form.clone()));
        if !checked.lone_surrogates {
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(rounded(value(&form)), rounded(value(&text)));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "[\\[\\]{}\",:\\\\u0-9eE.+ -]{0,40}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            let ours = Json::parse(bytes).is_ok();
            prop_assert_eq!(ours, serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok());
            if let Ok(checked) = check(bytes, &Limits::default()) {
                checked.json.compact(&mut String::new());
                let _form = checked.ecmascript(&mut String::new());
            }
        }
    }
}

/// Rounds numbers to what `serde_json` reads reliably: it can be off by a bit or two. Whether they
/// are exact is checked elsewhere, against an engine.
fn rounded(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        // Adding zero turns -0 into 0.
        Value::Number(number) => Value::from(format!("{:.12e}", number.as_f64().unwrap() + 0.0)),
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(key, value)| (key, rounded(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}
