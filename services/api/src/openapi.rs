//! The document that describes the API, made from the operations themselves.

use utoipa::{
    OpenApi,
    openapi::{
        Components, Content, ObjectBuilder, PathItem, Ref, RefOr, Required, ResponseBuilder, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    error::Problem,
    routes::{self, endpoints::reveal},
};

/// What the name of the security scheme is.
const SCHEME: &str = "key";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fanfare",
        description = "Delivers events to webhooks. Lists come in pages: `next_cursor` of one page \
            is `cursor` of the next. A change with `If-Match` is made only from that version, the \
            `ETag` of an earlier answer; without it, whatever is there is changed. A POST with an \
            `Idempotency-Key` can be repeated: for a day, the same request of the same API key is \
            answered as the first one was, also while that is still running, and another request \
            under this key is refused. What is wrong with a request is said as a problem \
            (RFC 9457), whose `code` never changes its meaning. The header `Fanfare-Reason` on a \
            change is kept with it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("key" = [])),
    tags(
        (name = "tenants", description = "Customers of the operator"),
        (name = "endpoints", description = "URLs of a tenant that want some event types"),
        (name = "event-types", description = "The catalogues: what events look like"),
        (name = "events", description = "What happened"),
        (name = "deliveries", description = "One event for one endpoint, and its attempts"),
        (name = "replays", description = "New deliveries of past events"),
        (name = "keys", description = "API keys"),
        (name = "audit", description = "Who changed what of the configuration, when and why"),
        (name = "health", description = "For load balancers"),
    ),
    components(schemas(Problem)),
)]
struct Document;

/// Returns the document that describes the API (OpenAPI 3.1), as it stands in
/// `deploy/openapi.json`.
///
/// # Panics
///
/// Never: the document is made of strings and numbers.
pub fn document() -> String {
    let (_, described) = routes::router().split_for_parts();
    let mut document = Document::openapi();
    document.merge(described);
    let components = document.components.get_or_insert_with(Components::new);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API key, fk_ and 64 hexadecimal digits, or the token of a portal link, fp_…",
        ))
        .build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        describe(operation);
        add_problem(operation);
    }
    let keyed = document.paths.paths.iter_mut().filter(|(path, _)| *path != reveal::PATH);
    for operation in keyed.filter_map(|(_, item)| item.post.as_mut()) {
        add_idempotency_key(operation);
    }
    let mut text = document.to_pretty_json().expect("a document of strings and numbers is JSON");
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Says of each answer what it means, which OpenAPI wants even where the status says it.
fn describe(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        response.description = String::from(match status.as_str() {
            "200" => "It is so",
            "201" => "It is created",
            "202" => "It is stored",
            "204" => "It is deleted",
            _ => "It is not so",
        });
    }
}

/// Says of an operation that everything else it answers is a problem.
fn add_problem(operation: &mut Operation) {
    let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
    let problem = ResponseBuilder::new()
        .description("What is wrong with the request")
        .content("application/problem+json", Content::new(Some(schema)))
        .build();
    operation.responses.responses.insert(String::from("default"), RefOr::T(problem));
}

/// Says of an operation that its repeats are answered like the first one, unless it says itself
/// what its keys do.
fn add_idempotency_key(operation: &mut Operation) {
    const NAME: &str = "Idempotency-Key";

    let parameters = operation.parameters.get_or_insert_with(Vec::new);
    let named = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => parameter.name == NAME,
        RefOr::Ref(_) => false,
    };
    if parameters.iter().any(named) {
        return;
    }
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(256));
    let parameter = ParameterBuilder::new()
        .name(NAME)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes a repeat harmless: for a day, the same request with the same key is answered as \
             the first one was; a different one is refused",
        ))
        .schema(Some(text))
        .build();
    parameters.push(RefOr::T(parameter));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_tree_is_the_one_that_is_served() {
        let kept = include_str!("../../../deploy/openapi.json");
        assert!(
            kept == document(),
            "deploy/openapi.json is out of date: \
             cargo run -p fanfare-api --example openapi > deploy/openapi.json"
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(String::from(name)), "{method} {path}: {name}");
                assert!(operation["summary"].is_string(), "{method} {path}");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert!(response["description"].is_string(), "{method} {path} {status}");
                }
                assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            }
        }
        assert!(names.len() > 25);
    }
}
