//! Rules of the architecture, read off `cargo metadata` and the source tree; and of what is shipped for
//! those who watch, and to those who judge how safe it is.

mod dashboards;
mod files;
mod imports;
mod security;
