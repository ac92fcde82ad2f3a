//! How an endpoint and we make sure of each other: from the command line to what the API takes.

use std::{fs, str::FromStr};

use clap::Args;
use fanfare_domain::seal::Clear;
use serde_json::{Map, Value, json};

use crate::client::{
    api::text,
    options::{Pair, map},
    text::printable,
};

/// Options of `fanfare endpoint create` and `update`. What is not given is left as it is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Security {
    /// A token that requests show (`Authorization: Bearer`), or @ and the file that has it.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["basic", "oauth2_token_url"])]
    bearer: Option<Given>,
    /// A name and a password that requests show (`Authorization: Basic`), with a colon between, or @
    /// and the file that has them.
    #[arg(long, value_name = "NAME:PASSWORD", conflicts_with = "oauth2_token_url")]
    basic: Option<Given>,
    /// Where a token is asked for that requests show (OAuth 2.0, client credentials).
    #[arg(long, value_name = "URL", requires = "oauth2_client_id")]
    oauth2_token_url: Option<String>,
    /// Who we are there.
    #[arg(long, value_name = "ID", requires = "oauth2_token_url")]
    oauth2_client_id: Option<String>,
    /// What proves it, or @ and the file that has it [default: as it was].
    #[arg(long, value_name = "SECRET", requires = "oauth2_token_url")]
    oauth2_client_secret: Option<Given>,
    /// What the token is to allow, with commas between.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', requires = "oauth2_token_url")]
    oauth2_scopes: Vec<String>,
    /// What else it is asked with, for example audience=…; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "oauth2_token_url")]
    oauth2_parameter: Vec<Pair>,
    /// Where id and secret stand in the request for a token [default: header].
    #[arg(
        long, value_name = "PLACE", value_parser = ["header", "body"],
        requires = "oauth2_token_url",
    )]
    oauth2_credentials_in: Option<String>,
    /// A file with authorities to trust besides those that are trusted for all, in PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<Pem>,
    /// A file with the certificate that requests show (mutual TLS), in PEM.
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<Pem>,
    /// A file with its key, in PEM [default: as it was].
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<Pem>,
    /// How it has to allow us to send before we do (then: endpoint validate); none is the default.
    #[arg(long, value_parser = ["none", "cloudevents"], value_name = "HOW")]
    validation: Option<String>,
}

/// A secret, as it stands on the command line or in the file that is named there.
#[derive(Clone, Debug)]
struct Given(Clear);

/// The text of a file in PEM.
#[derive(Clone, Debug)]
struct Pem(Clear);

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let secret = match text.strip_prefix('@') {
            Some(path) => read(path)?,
            None => Clear::new(String::from(text)),
        };
        Ok(Self(secret))
    }
}

impl FromStr for Pem {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        read(path).map(Self)
    }
}

/// Reads a file, without the line end that editors put behind all.
fn read(path: &str) -> Result<Clear, String> {
    let text = fs::read_to_string(path).map(Clear::new).map_err(|error| format!("{error}"))?;
    Ok(Clear::new(String::from(text.expose().trim_end_matches(['\r', '\n']))))
}

impl Given {
    fn json(&self) -> Value {
        Value::String(String::from(self.0.expose()))
    }
}

impl Pem {
    fn json(&self) -> Value {
        Value::String(String::from(self.0.expose()))
    }
}

impl Security {
    /// Adds what was given to what the API takes.
    pub(super) fn add_to(&self, members: &mut Map<String, Value>) {
        if let Some(authentication) = self.authentication() {
            members.insert(String::from("authentication"), authentication);
        }
        if let Some(how) = &self.validation {
            let how = Some(how).filter(|how| *how != "none");
            members.insert(String::from("validation"), json!(how));
        }
        let tls: Map<String, Value> = [
            ("ca_pem", &self.ca),
            ("client_certificate_pem", &self.client_certificate),
            ("client_key_pem", &self.client_key),
        ]
        .into_iter()
        .filter_map(|(name, pem)| Some((String::from(name), pem.as_ref()?.json())))
        .collect();
        if !tls.is_empty() {
            members.insert(String::from("tls"), Value::Object(tls));
        }
    }

    fn authentication(&self) -> Option<Value> {
        if let Some(token) = &self.bearer {
            return Some(json!({ "type": "bearer", "token": token.json() }));
        }
        if let Some(basic) = &self.basic {
            let (name, password) = basic.0.expose().split_once(':').unwrap_or_default();
            return Some(json!({ "type": "basic", "username": name, "password": password }));
        }
        let token_url = self.oauth2_token_url.as_ref()?;
        let mut all = json!({
            "type": "oauth2",
            "token_url": token_url,
            "client_id": self.oauth2_client_id,
            "scopes": self.oauth2_scopes,
            "parameters": map(&self.oauth2_parameter),
        });
        let optional = [
            ("client_secret", self.oauth2_client_secret.as_ref().map(Given::json)),
            ("credentials_in", self.oauth2_credentials_in.clone().map(Value::String)),
        ];
        for (name, value) in optional {
            if let (Some(value), Some(members)) = (value, all.as_object_mut()) {
                members.insert(String::from(name), value);
            }
        }
        Some(all)
    }
}

/// What requests show, for people; empty for nothing.
pub(super) fn authentication(endpoint: &Value) -> String {
    let Some(shown) = endpoint.get("authentication").filter(|shown| shown.is_object()) else {
        return String::new();
    };
    let words = match text(shown, "type") {
        "basic" => format!("basic, as {}", text(shown, "username")),
        "oauth2" => {
            format!("oauth2, as {} at {}", text(shown, "client_id"), text(shown, "token_url"))
        }
        other => String::from(other),
    };
    printable(&words)
}

/// What an endpoint has allowed that has to allow us to send, for people; empty if it has not to.
pub(super) fn validation(endpoint: &Value) -> String {
    let Some(allowed) = endpoint.get("allowed").filter(|allowed| allowed.is_object()) else {
        return String::new();
    };
    let how = printable(text(endpoint, "validation"));
    match (text(allowed, "at"), allowed.get("requests_per_minute").and_then(Value::as_u64)) {
        ("", _) => format!("{how}: not allowed yet"),
        (at, None) => printable(&format!("{how}: allowed, on {at}")),
        (at, Some(rate)) => printable(&format!("{how}: {rate} a minute allowed, on {at}")),
    }
}

/// How TLS is spoken, for people; empty for as with all others.
pub(super) fn tls(endpoint: &Value) -> String {
    let Some(tls) = endpoint.get("tls").filter(|tls| tls.is_object()) else {
        return String::new();
    };
    let certificate =
        |one: &Value| format!("{} (until {})", text(one, "subject"), text(one, "expires_at"));
    let client = tls.get("client_certificate").filter(|one| one.is_object());
    let shown = client.map(|one| format!("shows {}", certificate(one)));
    let authorities = tls.get("authorities").and_then(Value::as_array).into_iter().flatten();
    let trusted = authorities.map(|one| format!("trusts {}", certificate(one)));
    printable(&shown.into_iter().chain(trusted).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        security: Security,
    }

    fn members(words: &[&str]) -> Result<Value, clap::Error> {
        let matches = Line::command().try_get_matches_from([&["x"], words].concat())?;
        let mut members = Map::new();
        Line::from_arg_matches(&matches)?.security.add_to(&mut members);
        Ok(Value::Object(members))
    }

    #[test]
    fn secrets_are_given_or_read_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from-a-file\n").unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(members(&[]).unwrap(), json!({}));
        for (words, expected) in [
            (vec!["--bearer", "abc"], json!({ "type": "bearer", "token": "abc" })),
            (vec!["--bearer", &named], json!({ "type": "bearer", "token": "from-a-file" })),
            (
                vec!["--basic", "us:a:b"],
                json!({ "type": "basic", "username": "us", "password": "a:b" }),
            ),
            (
                vec![
                    "--oauth2-token-url",
                    "https://a/",
                    "--oauth2-client-id",
                    "us",
                    "--oauth2-client-secret",
                    &named,
                    "--oauth2-scopes",
                    "a,b",
                    "--oauth2-parameter",
                    "audience=c",
                ],
                json!({
                    "type": "oauth2", "token_url": "https://a/", "client_id": "us",
                    "client_secret": "from-a-file", "scopes": ["a", "b"],
                    "parameters": { "audience": "c" },
                }),
            ),
        ] {
            assert_eq!(members(&words).unwrap(), json!({ "authentication": expected }));
        }
        let pem = file.path().to_str().unwrap();
        let none = members(&["--validation", "none"]).unwrap();
        assert_eq!(none, json!({ "validation": null }));
        let given = ["--client-certificate", pem, "--client-key", pem];
        let expected = json!({ "tls": {
            "client_certificate_pem": "from-a-file", "client_key_pem": "from-a-file",
        } });
        assert_eq!(members(&given).unwrap(), expected);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["--bearer", "a", "--basic", "b:c"][..],
            &["--bearer", "a", "--oauth2-token-url", "https://a/", "--oauth2-client-id", "b"],
            &["--oauth2-token-url", "https://a/"],
            &["--oauth2-client-id", "a"],
            &["--client-key", "/dev/null"],
            &["--ca", "/nowhere/ca.pem"],
            &["--bearer", "@/nowhere/token"],
        ] {
            assert!(members(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_is_set_is_said_in_words() {
        let shown = json!({
            "authentication": { "type": "basic", "username": "us" },
            "tls": {
                "client_certificate": { "subject": "CN=us", "expires_at": "2030-01-01" },
                "authorities": [{ "subject": "CN=ca", "expires_at": "2031-01-01" }],
            },
        });
        assert_eq!(authentication(&shown), "basic, as us");
        let words = "shows CN=us (until 2030-01-01); trusts CN=ca (until 2031-01-01)";
        assert_eq!(tls(&shown), words);
        let none = json!({ "authentication": null, "tls": null });
        assert_eq!((authentication(&none), tls(&none)), (String::new(), String::new()));
        let allowed = |at: Value, rate: Value| {
            let allowed = json!({ "at": at, "requests_per_minute": rate });
            validation(&json!({ "validation": "cloudevents", "allowed": allowed }))
        };
        assert_eq!(allowed(Value::Null, Value::Null), "cloudevents: not allowed yet");
        assert_eq!(allowed(json!("today"), Value::Null), "cloudevents: allowed, on today");
        let bounded = "cloudevents: 120 a minute allowed, on today";
        assert_eq!(allowed(json!("today"), json!(120)), bounded);
        assert_eq!(validation(&json!({ "allowed": null })), "");
    }
}
