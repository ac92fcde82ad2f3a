//! What settings promise: everything wrong is said at once, by key, and never the text.

use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Server {
    port: u16,
    grace: Duration,
    body_bytes_max: u64,
    names: Vec<String>,
    proxy: Option<String>,
    workers: u32,
    log: Log,
}

#[derive(Debug, PartialEq, Eq)]
struct Log {
    url: String,
    batch: u16,
}

impl Settings for Server {
    fn read(source: &mut Source) -> Self {
        Self {
            port: source.take("port", 80),
            grace: source.take_duration("grace", Duration::from_secs(30)),
            body_bytes_max: source.take_bytes("body_bytes_max", 1024),
            names: source.take_list("names", vec![String::from("a")]),
            proxy: source.take_optional("proxy"),
            workers: source.take_within("workers", 4, 1..=64),
            log: source.section("log"),
        }
    }
}

impl Settings for Log {
    fn read(source: &mut Source) -> Self {
        let settings = Self {
            url: source.take("url", String::from("nats://a")),
            batch: source.take("batch", 1),
        };
        if settings.batch == 0 {
            source.note("batch", "must not be 0");
        }
        settings
    }
}

fn layer(origin: &str, key: &str, text: &str) -> Source {
    Source::new(BTreeMap::from([(String::from(key), String::from(text))]), origin)
}

#[test]
fn what_is_not_set_has_its_default() {
    let settings: Server = Source::default().load().unwrap();
    assert_eq!((settings.port, settings.workers, settings.proxy), (80, 4, None));
    assert_eq!(settings.names, ["a"]);
    assert_eq!(settings.log, Log { url: String::from("nats://a"), batch: 1 });
}

#[test]
fn every_kind_of_value_is_read() {
    let source = Source::from([
        ("port", "8080"),
        ("grace", "5m"),
        ("body_bytes_max", "512KiB"),
        ("names", "x, y"),
        ("proxy", "http://p"),
        ("workers", "64"),
        ("log.url", "nats://b"),
        ("log.batch", "7"),
    ]);
    let expected = Server {
        port: 8080,
        grace: Duration::from_mins(5),
        body_bytes_max: 512 * 1024,
        names: vec![String::from("x"), String::from("y")],
        proxy: Some(String::from("http://p")),
        workers: 64,
        log: Log { url: String::from("nats://b"), batch: 7 },
    };
    assert_eq!(source.load(), Ok(expected));
}

#[test]
fn every_mistake_is_reported_at_once() {
    let source = Source::from([
        ("port", "eighty"),
        ("grace", "soon"),
        ("workers", "65"),
        ("log.batch", "0"),
        ("log.uri", "nats://b"),
        ("colour", "red"),
    ]);
    let mistakes = source.load::<Server>().unwrap_err();
    assert_eq!(mistakes.keys(), ["colour", "grace", "log.batch", "log.uri", "port", "workers"]);
}

#[test]
fn the_last_layer_wins_and_a_mistake_names_its_layer() {
    let mut source = layer("defaults", "port", "1")
        .overlay(layer("fanfare.toml", "port", "2"))
        .overlay(layer("FANFARE_API__", "port", "three"));
    let mistakes = source.clone().load::<Server>().unwrap_err();
    let origins: Vec<_> = mistakes.iter().map(|mistake| mistake.origin.as_str()).collect();
    assert_eq!(origins, ["FANFARE_API__"]);
    source.set("port", "4", "the command line");
    assert_eq!(source.load::<Server>().unwrap().port, 4);
}

#[test]
fn mistakes_and_debug_output_never_show_the_text() {
    let source = Source::from([("port", "hunter2"), ("grace", "hunter2"), ("secret", "hunter2")]);
    assert!(!format!("{source:?}").contains("hunter2"));
    let mistakes = source.load::<Server>().unwrap_err();
    assert!(!mistakes.to_string().contains("hunter2"));
}

#[test]
fn an_empty_optional_setting_is_absent() {
    let settings: Server = Source::from([("proxy", "")]).load().unwrap();
    assert_eq!(settings.proxy, None);
}

#[test]
fn what_is_shown_hides_secrets() {
    let source =
        Source::from([("key_file", "/k"), ("api.key", "abc"), ("log.url", "nats://u:p@h")]);
    let shown: Vec<_> = source.shown().into_values().collect();
    assert_eq!(shown, ["***", "/k", "nats://***@h"]);
}

#[test]
fn every_setting_in_effect_is_shown_also_what_is_not_set() {
    let source = Source::from([("port", "8080"), ("log.url", "nats://u:p@h")]);
    let (settings, shown) = source.load_shown::<Server>().unwrap();
    assert_eq!(settings.port, 8080);
    let keys: Vec<&str> = shown.keys().map(String::as_str).collect();
    let all =
        ["body_bytes_max", "grace", "log.batch", "log.url", "names", "port", "proxy", "workers"];
    assert_eq!(keys, all);
    assert_eq!(shown["port"].as_deref(), Some("8080"));
    assert_eq!(shown["log.url"].as_deref(), Some("nats://***@h"));
    assert_eq!(shown["proxy"], None);
}

#[test]
fn a_mistake_says_what_would_be_right() {
    let source = Source::from([("workers", "many"), ("log.uri", "x"), ("port", "-1")]);
    let mistakes = source.load::<Server>().unwrap_err().to_string();
    for words in [
        "workers: not a whole number between 1 and 64",
        "log.uri: unknown setting: did you mean log.url?",
        "port: not a whole number",
    ] {
        assert!(mistakes.contains(words), "{mistakes}");
    }
}

#[test]
fn a_key_knows_the_layer_it_comes_from() {
    let source = layer("defaults", "port", "1").overlay(layer("fanfare.toml", "port", "2"));
    assert_eq!((source.origin("port"), source.origin("workers")), (Some("fanfare.toml"), None));
}
