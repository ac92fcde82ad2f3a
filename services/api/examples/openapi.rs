//! Writes the document that describes the API: `cargo run -p fanfare-api --example openapi`.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    io::stdout().write_all(fanfare_api::openapi_document().as_bytes())
}
