//! Expressions of all kinds, about data of all kinds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn judge(text: &str, data: &str) -> Result<bool, Failed> {
    let attributes = BTreeMap::from([(String::from("region"), String::from("eu"))]);
    let subject = Subject::new("invoice.paid", &attributes, data.as_bytes());
    Condition::parse(text).unwrap_or_else(|broken| panic!("{text}: {broken}")).judge(&subject)
}

#[test]
fn events_are_chosen_by_their_content() {
    let data = r#"{"amount":150,"price":98.5,"id":12345678901234567890,"who":{"vip":true},
        "lines":[{"sku":"a","count":1},{"sku":"b","count":7}],"note":null,"name":"Ada"}"#;
    for (text, expected) in [
        ("data.amount > 100", true),
        ("data.amount > 100.5", true),
        ("data.amount == 150.0", true),
        ("data.price < 98", false),
        ("data.price == 98.5", true),
        ("data.id > 5", true),
        ("data.who.vip", true),
        ("!data.who.vip", false),
        ("data.note == null", true),
        ("type == 'invoice.paid'", true),
        ("type.startsWith('invoice.')", true),
        ("attributes.region in ['eu', 'us']", true),
        ("attributes['region'] == 'us'", false),
        ("has(data.missing) && data.missing == 1", false),
        ("has(data.who.vip)", true),
        ("data.lines.exists(line, line.count > 5)", true),
        ("data.lines.all(line, line.count > 5)", false),
        ("size(data.lines.filter(line, line.sku == 'a')) == 1", true),
        ("data.lines[1].sku == 'b'", true),
        ("'name' in data", true),
        ("data.name.contains('da') && data.name.endsWith('a')", true),
        ("data.amount > 100 ? data.price > 90 : false", true),
        ("data['lines'].map(line, line.count).exists(count, count == 7)", true),
    ] {
        assert_eq!(judge(text, data), Ok(expected), "{text}");
    }
}

#[test]
fn what_gives_no_answer_says_why() {
    let kind = |text: &str, data: &str| judge(text, data).unwrap_err().kind();
    assert_eq!(judge("data.missing == 1", "{}"), Err(Failed::Missing(String::from("missing"))));
    assert_eq!(kind("data.amount", r#"{"amount":1}"#), "not_boolean");
    assert_eq!(kind("data.amount > 'x'", r#"{"amount":1}"#), "evaluation");
    assert_eq!(kind("data.a / 0 == 1", r#"{"a":1}"#), "evaluation");
    assert_eq!(kind("data.a[7] == 1", r#"{"a":[]}"#), "evaluation");
    assert_eq!(kind("true", r#""\ud800""#), "data");
    assert_eq!(judge("true", "1e400"), Err(Failed::Data(Unread::Number)));
    assert_eq!(judge("true", r#""\ud800""#), Err(Failed::Data(Unread::Text)));
    let broken = Condition::stored("data.").judge(&Subject::new("a", &BTreeMap::new(), b"1"));
    assert_eq!(broken.unwrap_err().kind(), "broken");
}

#[test]
fn a_broken_expression_is_refused_with_the_place() {
    for (text, line, column) in [
        ("", 1, 1),
        ("data.amount >", 1, 14),
        ("data.amount > 1 &&\n  event.type == 'a'", 2, 3),
        ("data.a.matches('x')", 1, 8),
        ("unknown == 1", 1, 1),
        ("timestamp(data.at) > 1", 1, 1),
    ] {
        let broken = Condition::parse(text).unwrap_err();
        assert_eq!((broken.line, broken.column), (line, column), "{text}: {broken}");
    }
}

#[test]
fn what_could_cost_much_is_refused_or_stopped() {
    let long = format!("type == '{}'", "x".repeat(Condition::BYTES_MAX));
    let brackets = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    let lists = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let sums = format!("'a' == {}'a'", "data.a + ".repeat(40));
    let chain = format!("data{}", ".a".repeat(900));
    let minus = format!("{}1 == 1", "-".repeat(1_000));
    let not = format!("{}true", "!".repeat(1_000));
    let either = format!("{}true", "true ? false : ".repeat(100));
    let nested = "data.all(a, data.all(b, data.all(c, true)))";
    for text in [&*long, &brackets, &lists, &sums, &chain, nested, &either] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
    // Whatever these mean, nothing is ended by them.
    for text in [&*minus, &not, "}{", "\u{0}", "'", "\"\\u{ffff}", "a.b(", "/* */", "//"] {
        drop(Condition::parse(text));
    }
}

#[test]
fn nothing_can_be_made_that_grows() {
    let doubled = format!("size([data]{}) > 0", ".map(a, a + a)".repeat(16));
    let lists = format!("size([1]{}) > 0", ".map(a, [a, a])".repeat(40));
    let copies = format!("size([{}data]) > 0", "data, ".repeat(250));
    let wide = format!("size([{}1].map(a, data)) > 0", "1, ".repeat(256));
    let chain = format!("size(data{}) > 0", ".map(a, a)".repeat(40));
    for text in [
        &*doubled,
        &lists,
        &copies,
        &wide,
        &chain,
        "[data].exists(a, true)",
        "size([[1]]) > 0",
        "size({'a': data}) > 0",
        "size({1: 2}) > 0",
        "data.exists(a, size([a, a]) > 0)",
        "size(data.map(a, data)) > 0",
        "size(data.map(a, a + a)) > 0",
        "size(data.map(a, a == 1, [a])) > 0",
        "size(data.filter(a, true).filter(b, true).filter(c, true)) > 0",
        "(data.a + data.b).exists(a, a == 1)",
        "(data.a ? data.b : data.c).all(a, a == 1)",
        "data.?a == 1",
        "data[?'a'] == 1",
        "[?data.a] == [1]",
    ] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
    for text in [
        "size(data.filter(a, a > 1).filter(b, b < 7)) > 0",
        "size(data.map(a, a.b > 1, a.c.d)) > 0",
        "[1, -2, 'a', 1.5, true].exists(a, a == data)",
        "data.a['b'][0].all(a, a + 1 > 0)",
    ] {
        assert!(Condition::parse(text).is_ok(), "{text}");
    }
}

fn steps(text: &str, data: &str) -> u64 {
    let subject = Subject::new("a", &BTreeMap::new(), data.as_bytes());
    let (context, size) = subject.parts().unwrap();
    let program = check::parse(text).unwrap_or_else(|broken| panic!("{text}: {broken}"));
    cost::steps(program.expression(), context, size)
}

fn list(length: usize) -> String {
    format!("[{}]", vec!["1"; length].join(","))
}

#[test]
fn every_round_and_every_copy_is_counted() {
    let ten_thousand = list(10_000);
    for (text, rounds) in [
        ("data.all(a, true)", 10_000),
        ("size(data.filter(a, true)) > 0", 10_000),
        ("data.all(a, true) && data.all(b, true) && data.exists(c, c == 2)", 30_000),
        ("data.map(a, a).exists(b, b == 2)", 20_000),
        ("[1, 2, 3].all(a, data.all(b, b == a))", 30_000),
        ("data.all(a, data.all(b, b == a))", 100_000_000),
        ("data.all(a, a in data)", 100_000_000),
        ("data.all(a, a == size(data))", 100_000_000),
    ] {
        let counted = steps(text, &ten_thousand);
        assert!(counted >= rounds, "{text}: {counted}");
    }
    // What looks at each element once costs as much as the data is large, and no more.
    for text in [
        "data.all(a, a == 1)",
        "size(data.filter(a, a > 1)) == 0",
        "data.map(a, a).exists(b, b == 2)",
    ] {
        let (small, large) = (steps(text, &list(10_000)), steps(text, &list(20_000)));
        assert!(large < small.saturating_mul(21) / 10, "{text}: {small} and {large}");
        assert!(large < 20_000 * 60, "{text}: {large}");
    }
    // What lies within the elements is counted once, however it is spread.
    let spread = format!("[{}[1]]", "[1,2],".repeat(5_000));
    let heap = format!("[{}{}]", "[],".repeat(5_000), list(10_000));
    for data in [spread, heap] {
        let counted = steps("data.all(a, a.exists(b, b == 1))", &data);
        assert!((10_000..700_000).contains(&counted), "{counted}");
    }
    // What is known to be small is not taken for all of the data.
    let lines =
        format!(r#"{{"sku":"b","lines":[{}{{"sku":"b"}}]}}"#, r#"{"sku":"a"},"#.repeat(1_000));
    assert!(steps("data.lines.exists(line, line.sku == data.sku)", &lines) < 60_000);
    assert_eq!(judge("data.lines.exists(line, line.sku == data.sku)", &lines), Ok(true));
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    assert!(steps("[1, 2, 3].exists(a, data.a.contains('y'))", &text) > 300_000 / 16);
}

#[test]
fn an_evaluation_has_one_budget() {
    let longest = list(260_000);
    assert_eq!(judge("data.all(a, a == 1)", &longest), Ok(true));
    let again = vec!["data.all(a, a == 1)"; 60].join(" && ");
    let costly = Err(Failed::TooCostly { limit: cost::STEPS_MAX });
    assert_eq!(judge(&again, &longest), costly);
    assert_eq!(judge("data.all(a, data.all(b, a == b))", &longest), costly);
    let texts = format!("[\"{}\"]", "x".repeat(400_000));
    assert_eq!(judge("data.exists(a, a.contains('y'))", &texts), Ok(false));
    let within = format!("[{}[1]]", "[1,2],".repeat(20_000));
    assert_eq!(judge("data.all(a, a.exists(b, b == 1))", &within), Ok(true));
}

#[test]
fn nothing_depends_on_an_order_that_is_not_there() {
    for text in ["data.map(a, a)[0] == 'x'", "data.filter(a, true) == ['x', 'y']"] {
        assert!(Condition::parse(text).is_err(), "{text}");
    }
    let data = r#"{"x":1,"y":2}"#;
    assert_eq!(
        judge("'x' in data.map(a, a) && size(data.filter(a, a == 'y')) == 1", data),
        Ok(true)
    );
}

#[test]
fn conditions_are_the_same_if_their_texts_are() {
    let one = Condition::parse("data.a == 1").unwrap();
    assert_eq!(one, Condition::stored("data.a == 1"));
    assert_ne!(one, Condition::stored("data.a  == 1"));
    assert_eq!(format!("{one:?}"), "Condition(\"data.a == 1\")");
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        "\\PC{0,8}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[ab]|\\PC{0,4}", inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Expressions that know nothing of what they look at.
const BOLD: [&str; 17] = [
    "data.a > 1",
    "data.a + data.b == data.a",
    "data.a - data.b < 0",
    "data.a * data.b == 1",
    "data.a / data.b == 1",
    "data.a % data.b == 1",
    "-data.a == data.b",
    "data.a[data.b] == 1",
    "data.exists(a, a == data[0])",
    "data.all(a, size(a) > 1)",
    "data.map(a, a.b).exists(b, b in data)",
    "int(data.a) == 1 || double(data.b) > 1.5",
    "string(data.a).contains(string(data.b))",
    "uint(data.a) == uint(data.b)",
    "data.filter(a, a.b > 1).exists(b, b.a == data.a)",
    "size(data.map(a, size(a) > 1, a[0])) > 1",
    "[1, 'a'].exists(a, data.exists(b, b == a)) || data in data",
];

proptest! {
    #[test]
    fn no_data_makes_an_expression_panic(data in any_json(), which in 0..BOLD.len()) {
        let first = judge(BOLD[which], &data.to_string());
        prop_assert!(first != Err(Failed::Defect), "{} of {data}", BOLD[which]);
        prop_assert_eq!(judge(BOLD[which], &data.to_string()), first, "another answer");
    }

    #[test]
    fn no_chain_of_macros_costs_more_than_its_square(
        links in prop::collection::vec(
            prop::sample::select(&[
                ".map(a, a)", ".map(a, a.b)", ".map(a, [a, a])", ".map(a, a + a)", ".filter(a, true)",
                ".filter(a, a in data)", ".map(a, data)", "[0]", ".a",
            ][..]),
            0..6,
        ),
        first in prop::sample::select(&["data", "[data, data]", "[1, 2, 3]", "data.a"][..]),
    ) {
        let text = format!("size({first}{}) > 0", links.concat());
        if let Ok(condition) = Condition::parse(&text) {
            let data = list(100);
            let counted = steps(&text, &data);
            prop_assert!(counted <= 200 * 100 * 100, "{text}: {counted}");
            let judged = condition.judge(&Subject::new("a", &BTreeMap::new(), data.as_bytes()));
            prop_assert!(judged != Err(Failed::Defect), "{text}");
        }
    }

    #[test]
    fn no_text_makes_reading_it_panic(text in "[a-z0-9 .()\\[\\]{}'\"+*/%!?:&|<>=,-]{0,60}|\\PC{0,40}") {
        if let Ok(condition) = Condition::parse(&text) {
            let judged = condition.judge(&Subject::new("a", &BTreeMap::new(), b"{}"));
            prop_assert!(judged != Err(Failed::Defect));
        }
    }
}
