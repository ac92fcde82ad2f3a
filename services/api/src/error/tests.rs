//! The table of codes is what the documentation says, and nothing inside is told.

use anyhow::anyhow;
use axum::{body::to_bytes, http::StatusCode};
use fanfare_domain::{AddressPolicy, EndpointUrl, UrlPolicy};

use super::*;

async fn told(error: ApiError) -> (StatusCode, serde_json::Value) {
    let response = error.into_response();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let status = response.status();
    let body = to_bytes(response.into_body(), 4_096).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// The doc comment is what readers have: a code may be added to it, and none may change.
#[test]
fn the_documented_table_is_the_one_in_use() {
    let source = include_str!("code.rs");
    let documented: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | "))
        .filter(|row| row.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    let row = |code: &Code| {
        format!("{} | `{}` | {} |", code.status().as_u16(), code.as_str(), code.title())
    };
    assert_eq!(documented, Code::ALL.iter().map(row).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_problem_names_its_code_and_its_field() {
    let (status, body) = told(ApiError::value("name", "too long")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let expected = serde_json::json!({
        "type": "urn:fanfare:problem:value_invalid",
        "title": "A value is not admitted.",
        "status": 400,
        "code": "value_invalid",
        "detail": "too long",
        "field": "name",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn causes_are_not_told() {
    for error in [
        ApiError::Internal(anyhow!("password hunter2")),
        ApiError::Unavailable(anyhow!("nats://me:hunter2@host")),
    ] {
        let (status, body) = told(error).await;
        assert!(status.is_server_error());
        assert!(!body.to_string().contains("hunter2"));
        assert_eq!(body.get("detail"), None);
    }
}

#[tokio::test]
async fn a_refused_url_has_the_domains_own_code() {
    for text in [
        "ftp://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://a@example.com/",
        "https://example.com/#a",
        "https://example.com:22/",
        "https://example.com/ ",
        "https:///",
    ] {
        let policy = UrlPolicy { addresses: AddressPolicy::default(), ..UrlPolicy::default() };
        let refused = EndpointUrl::parse(text, &policy).unwrap_err();
        let name = refused.as_str();
        let (_, body) = told(refused.into()).await;
        assert_eq!(body["code"], name, "{text}");
    }
}
