//! Rules of the architecture, read off `cargo metadata` and the source tree.

mod files;
mod imports;
