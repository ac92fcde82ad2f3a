//! Which layer wins, and what no layer may hold.

use super::*;

#[derive(Debug, PartialEq)]
struct Sample {
    port: u16,
    rate: f64,
    urls: Vec<String>,
    log_url: String,
}

impl Settings for Sample {
    fn read(source: &mut Source) -> Self {
        Self {
            port: source.take("port", 0),
            rate: source.take("rate", 0.0),
            urls: source.take_list("urls", Vec::new()),
            log_url: source.take("log.url", String::new()),
        }
    }
}

const DEFAULTS: &str = "
port = 80
rate = 0.5
urls = [\"a\", \"b\"]
[log]
url = \"nats://default\"
";

fn sources() -> Sources {
    Sources::new("fan-out", DEFAULTS).unwrap()
}

fn file(text: &str) -> SettingsFile {
    SettingsFile::parse("fanfare.toml", text).unwrap()
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, text)| (String::from(name), String::from(text))).collect()
}

#[test]
fn the_defaults_are_a_layer_like_any_other() {
    let sample: Sample = sources().load().unwrap();
    assert_eq!((sample.port, sample.urls.len()), (80, 2));
    assert_eq!(sample.log_url, "nats://default");
    assert!((sample.rate - 0.5).abs() < f64::EPSILON);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let text = "port = 81\nrate = 1\n[log]\nurl = \"nats://file\"";
    let env = variables([
        ("FANFARE_FAN_OUT__PORT", "82"),
        ("FANFARE_FAN_OUT__LOG__URL", "nats://env"),
        ("FANFARE_INGEST__PORT", "1"),
        ("FANFARE_FAN_OUTPORT", "2"),
        ("PATH", "/bin"),
    ]);
    let sources = sources().file(&file(text)).unwrap().env(&env).set("port", "83");
    let sample: Sample = sources.load().unwrap();
    assert_eq!((sample.port, sample.log_url.as_str()), (83, "nats://env"));
    assert!((sample.rate - 1.0).abs() < f64::EPSILON);
}

#[test]
fn one_file_can_hold_a_table_for_each_service() {
    let file = file("[fan-out]\nport = 7\n[ingest]\ncolour = \"red\"");
    file.only(&["fan-out", "ingest", "log"]).unwrap();
    let sample: Sample = sources().table_of(&file).unwrap().load().unwrap();
    assert_eq!(sample.port, 7);
    let misplaced = SettingsFile::parse("x", "fan-out = 3").unwrap();
    let error = sources().table_of(&misplaced).unwrap_err();
    assert!(matches!(error, SourcesError::Unsupported { key, .. } if key == "fan-out"));
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    let env = variables([("FANFARE_FAN_OUT__PORT", "x"), ("FANFARE_FAN_OUT__LOG__URI", "y")]);
    let mistakes = sources().env(&env).load::<Sample>().unwrap_err();
    assert_eq!(mistakes.keys(), ["log.uri", "port"]);
    let origins: Vec<_> = mistakes.iter().map(|mistake| mistake.origin.as_str()).collect();
    assert_eq!(origins, ["FANFARE_FAN_OUT__LOG__URI", "FANFARE_FAN_OUT__PORT"]);
}

#[test]
fn text_that_is_not_toml_is_refused_by_line_and_not_shown() {
    let error = SettingsFile::parse("f", "port = 1\nsecret = \"hunter2").unwrap_err();
    assert!(matches!(error, SourcesError::NotToml { line: 2, .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn what_no_setting_can_be_is_refused() {
    for (text, expected) in [
        ("urls = [\"a,b\"]", "urls"),
        ("urls = [[1], [2]]", "urls"),
        ("[log]\nx = [{ y = 1 }]", "log.x"),
    ] {
        let error = sources().file(&file(text)).unwrap_err();
        assert!(
            matches!(&error, SourcesError::Unsupported { key, .. } if key == expected),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = SettingsFile::read(Path::new("/nowhere/fanfare.toml")).unwrap_err();
    assert!(
        matches!(error, SourcesError::Unreadable { path, .. } if path.ends_with("fanfare.toml"))
    );
}

#[test]
fn a_table_that_nobody_reads_is_refused_with_what_was_meant() {
    let tables = ["fan-out", "ingest", "log"];
    let said = |text: &str| file(text).only(&tables).unwrap_err().to_string();
    assert_eq!(
        said("[fanout]\nport = 7"),
        "fanfare.toml: unknown table fanout (did you mean [fan-out]?): there are [fan-out], \
         [ingest], [log]"
    );
    assert!(said("port = 7").starts_with("fanfare.toml: unknown table port: there are"));
}

#[test]
fn a_shared_section_holds_for_a_service_unless_its_own_table_says_otherwise() {
    let file = file("[log]\nurl = \"nats://all\"\n[fan-out]\nport = 7");
    let shared = sources().section_of(&file, "log").unwrap();
    assert_eq!(shared.said_by("log.url"), Some("fanfare.toml"));
    let sample: Sample = shared.table_of(&file).unwrap().load().unwrap();
    assert_eq!((sample.log_url.as_str(), sample.port), ("nats://all", 7));
    let own = SettingsFile::parse("f", "[log]\nurl = \"a\"\n[fan-out.log]\nurl = \"b\"").unwrap();
    let sources = sources().section_of(&own, "log").unwrap().table_of(&own).unwrap();
    let sample: Sample = sources.load().unwrap();
    assert_eq!(sample.log_url, "b");
    let misplaced = SettingsFile::parse("x", "log = 3").unwrap();
    assert!(self::sources().section_of(&misplaced, "log").is_err());
}

#[test]
fn it_is_known_who_said_something() {
    let sources = sources().set("port", "1");
    assert_eq!((sources.said_by("port"), sources.said_by("log.url")), (None, None));
    let env = variables([("FANFARE_FAN_OUT__LOG__URL", "nats://env")]);
    assert_eq!(sources.env(&env).said_by("log.url"), Some("FANFARE_FAN_OUT__LOG__URL"));
}
