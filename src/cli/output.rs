//! What tools print: lines for people and scripts as Kafka's tools print them, or JSON for machines.
//!
//! A closed pipe ends a tool quietly: what read its output has seen enough.

use std::io::Write;

use crate::client::ClientError;

/// Which of the two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// As Kafka's own tools.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// The flag for it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct OutputOptions {
    /// text, or json for machines.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
}

impl OutputOptions {
    pub fn is_json(self) -> bool {
        self.output == OutputFormat::Json
    }
}

/// Writes text to standard output as it is.
pub(super) fn print(text: &str) -> Result<(), ClientError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ClientError::Usage(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a JSON document and a line break.
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), ClientError> {
    print(&format!("{value:#}\n"))
}

/// Rows below a heading, each column as wide as `least` says or its longest cell; the last is not padded.
pub(super) fn table(heading: &[&str], least: &[usize], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let heading = heading.get(column).map_or(0, |cell| cell.chars().count());
        cells.chain([heading, least.get(column).copied().unwrap_or_default()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            row.push_str(&format!("{cell:<width$} "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_asked_or_as_their_longest_cell() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned(), "x".to_owned()]];
        assert_eq!(
            table(&["ONE", "TWO", "THREE"], &[5, 2, 9], &rows),
            "ONE   TWO       THREE\na     long cell x\n"
        );
    }
}
