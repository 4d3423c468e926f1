//! The tests of rotation, copies and restores, one module a subject.

#[path = "../common/mod.rs"]
mod common;

mod copy;
mod crash;
mod io_error;
mod model;
mod restore;
mod rotation;
mod twice;
