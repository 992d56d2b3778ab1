//! Reading a connector file: every problem is collected with its place, none stops the others from being found.

mod problem;
mod reader;
mod table;
mod visit;

pub use problem::Problem;
pub(crate) use problem::suggest;
pub(crate) use reader::Reader;
pub(crate) use table::Table;
#[cfg(test)]
pub(crate) use visit::{Form, Visit};
