//! Trees of labelled lines, as `explain` and `trace` print them.

use super::out::{Out, Paint};
use std::io;

/// A line of the tree: a label, text in pieces of one colour each, and what belongs to it.
#[derive(Debug, Default)]
pub struct Node {
    label: &'static str,
    spans: Vec<(String, Paint)>,
    /// Further lines under the text, without a branch of their own.
    below: Vec<String>,
    children: Vec<Node>,
}

/// Width of the column of labels.
const LABEL: usize = 10;

impl Node {
    /// A line with a label, to be filled.
    pub fn new(label: &'static str) -> Self {
        Node { label, ..Node::default() }
    }

    /// Adds text.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.spans.push((text.into(), Paint::Plain));
        self
    }

    /// Adds coloured text.
    pub fn painted(mut self, text: impl ToString, paint: Paint) -> Self {
        self.spans.push((text.to_string(), paint));
        self
    }

    /// Adds spaces up to a column, counted from the start of the text.
    pub fn pad(mut self, column: usize) -> Self {
        let have = self.width();
        if have < column {
            self.spans.push((" ".repeat(column - have), Paint::Plain));
        }
        self
    }

    /// Characters of the text so far.
    pub fn width(&self) -> usize {
        self.spans.iter().map(|(t, _)| t.chars().count()).sum()
    }

    /// Adds a line under the text.
    pub fn below(mut self, line: impl Into<String>) -> Self {
        self.below.push(line.into());
        self
    }

    /// Adds a child.
    pub fn push(&mut self, child: Node) {
        self.children.push(child);
    }

    /// Adds children.
    pub fn with(mut self, children: impl IntoIterator<Item = Node>) -> Self {
        self.children.extend(children);
        self
    }

    /// Prints the node as the root of a tree.
    pub fn print(&self, out: &mut Out<'_>) -> io::Result<()> {
        self.line(out)?;
        for line in &self.below {
            out.text(format_args!("{line}\n"))?;
        }
        self.print_children(out, "")
    }

    fn line(&self, out: &mut Out<'_>) -> io::Result<()> {
        if !self.label.is_empty() {
            out.text(format_args!("{:<LABEL$}", self.label))?;
        }
        for (text, paint) in &self.spans {
            out.painted(text, *paint)?;
        }
        out.text("\n")
    }

    fn print_children(&self, out: &mut Out<'_>, indent: &str) -> io::Result<()> {
        let last = self.children.len().saturating_sub(1);
        for (i, child) in self.children.iter().enumerate() {
            let (branch, rest) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            out.text(format_args!("{indent}{branch}"))?;
            child.line(out)?;
            let inner = format!("{indent}{rest}");
            let stem = if child.children.is_empty() { "" } else { "│  " };
            for line in &child.below {
                let space = LABEL.saturating_sub(stem.chars().count());
                let space = if child.label.is_empty() { 0 } else { space };
                out.text(format_args!("{inner}{stem}{:space$}{line}\n", ""))?;
            }
            child.print_children(out, &inner)?;
        }
        Ok(())
    }
}
