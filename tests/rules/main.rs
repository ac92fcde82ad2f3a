//! Rules of the architecture, read off `cargo metadata` and the source tree; and of what is shipped for
//! those who watch.

mod dashboards;
mod files;
mod imports;
