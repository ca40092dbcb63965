//! What a person reads: the progress line, the tables of the terminal, the HTML page with its plots.

mod html;
mod plot;
mod progress;
mod table;

pub use html::page;
pub use progress::Progress;
pub use table::{comparison_table, number, outcome_table};
