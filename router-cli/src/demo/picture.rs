//! Topologies as pictures of characters: a row of hosts with the links between them.

/// A host in the picture.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is: `Linux`, `duet`.
    pub kind: &'a str,
    /// Lines below it, such as its addresses.
    pub notes: &'a [&'a str],
}

/// A tunnel between two hosts of the row.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// Place of its left end in the row.
    pub from: usize,
    /// Place of its right end in the row.
    pub to: usize,
    /// What it is.
    pub label: &'a str,
}

/// A row of hosts, each linked with the next.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// The hosts, from left to right.
    pub nodes: &'a [Node<'a>],
    /// Lines below each link, such as its prefix: one entry less than hosts.
    pub links: &'a [&'a [&'a str]],
    /// A tunnel, if there is one.
    pub tunnel: Option<Tunnel<'a>>,
}

/// Columns of a picture.
const WIDTH: usize = 96;
/// Columns of a host's box.
const BOX: usize = 12;
/// No gap between boxes is wider.
const WIDEST_GAP: usize = 26;

impl Picture<'_> {
    /// The lines of the picture, at most 96 columns wide.
    pub fn draw(&self) -> Vec<String> {
        let n = self.nodes.len();
        let gap = ((WIDTH - n * BOX) / n.saturating_sub(1).max(1)).min(WIDEST_GAP);
        let left = |i: usize| i * (BOX + gap);
        let middle = |i: usize| left(i) + BOX / 2;
        let mut canvas = Canvas::default();
        for (i, node) in self.nodes.iter().enumerate() {
            let x = left(i);
            canvas.put(x, 0, &format!("┌{}┐", "─".repeat(BOX - 2)));
            canvas.put(x, 1, &format!("│{:^1$}│", node.name, BOX - 2));
            canvas.put(x, 2, &format!("│{:^1$}│", node.kind, BOX - 2));
            canvas.put(x, 3, &format!("└{}┘", "─".repeat(BOX - 2)));
            if i > 0 {
                canvas.put(x - gap - 1, 2, &format!("├{}┤", "─".repeat(gap)));
            }
        }
        let mut row = 4;
        if let Some(t) = self.tunnel {
            let (from, to) = (middle(t.from), middle(t.to));
            canvas.put(from, 3, "┬");
            canvas.put(to, 3, "┬");
            let label = format!(" {} ", t.label);
            canvas.put(from, row, &format!("└{:═^1$}┘", label, to - from - 1));
            row += 1;
        }
        for (i, node) in self.nodes.iter().enumerate() {
            for (k, line) in node.notes.iter().enumerate() {
                canvas.put_centred(middle(i), row + k, line);
            }
        }
        // Labels of links stand beside those of hosts where all are short enough not to meet, else below.
        let place = |i: usize| left(i) + BOX + gap / 2;
        let labels =
            || self.links.iter().enumerate().flat_map(|(i, l)| l.iter().enumerate().map(move |(k, t)| (i, k, t)));
        if !labels().all(|(i, k, text)| canvas.is_free_centred(place(i), row + k, text)) {
            row += self.nodes.iter().map(|n| n.notes.len()).max().unwrap_or(0);
        }
        for (i, k, text) in labels() {
            canvas.put_centred(place(i), row + k, text);
        }
        canvas.lines()
    }
}

/// A sheet of characters that grows as needed.
#[derive(Default)]
struct Canvas(Vec<Vec<char>>);

impl Canvas {
    fn put(&mut self, x: usize, y: usize, text: &str) {
        if self.0.len() <= y {
            self.0.resize(y + 1, Vec::new());
        }
        let row = &mut self.0[y];
        let end = x + text.chars().count();
        if row.len() < end {
            row.resize(end, ' ');
        }
        for (cell, c) in row[x..].iter_mut().zip(text.chars()) {
            *cell = c;
        }
    }

    /// The first column of a text centred on `x`, inside the picture.
    fn start(x: usize, text: &str) -> usize {
        let len = text.chars().count();
        x.saturating_sub(len / 2).min(WIDTH.saturating_sub(len))
    }

    fn put_centred(&mut self, x: usize, y: usize, text: &str) {
        self.put(Self::start(x, text), y, text);
    }

    fn is_free_centred(&self, x: usize, y: usize, text: &str) -> bool {
        let start = Self::start(x, text);
        let range = start.saturating_sub(1)..start + text.chars().count() + 1;
        let Some(row) = self.0.get(y) else { return true };
        range.into_iter().all(|i| row.get(i).is_none_or(|c| *c == ' '))
    }

    fn lines(self) -> Vec<String> {
        self.0.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node<'a>(name: &'a str, notes: &'a [&'a str]) -> Node<'a> {
        Node { name, kind: "duet", notes }
    }

    #[test]
    fn three_in_a_row() {
        let picture = Picture {
            nodes: &[node("a", &["192.0.2.1"]), node("r", &[]), node("b", &["198.51.100.1"])],
            links: &[&["192.0.2.0/24"], &["198.51.100.0/24"]],
            tunnel: None,
        };
        assert_eq!(
            picture.draw(),
            [
                "┌──────────┐                          ┌──────────┐                          ┌──────────┐",
                "│    a     │                          │    r     │                          │    b     │",
                "│   duet   ├──────────────────────────┤   duet   ├──────────────────────────┤   duet   │",
                "└──────────┘                          └──────────┘                          └──────────┘",
                "  192.0.2.1        192.0.2.0/24                         198.51.100.0/24     198.51.100.1",
            ]
        );
    }

    #[test]
    fn five_fit_into_the_width_with_a_tunnel() {
        let notes = ["2001:db8:aaaa:bbbb::10"];
        let nodes = ["a", "r1", "isp", "r2", "b"].map(|n| node(n, if n.len() == 1 { &notes } else { &[] }));
        let link: &[&str] = &["2001:db8:1::/64"];
        let tunnel = Some(Tunnel { from: 1, to: 3, label: "6in4" });
        let lines = Picture { nodes: &nodes, links: &[link; 4], tunnel }.draw();
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH), "{lines:#?}");
        assert!(lines[4].contains("═ 6in4 ═"));
        assert!(lines[3].contains("└─────┬────┘"));
        assert_eq!(lines[5].matches("2001:db8:aaaa:bbbb::10").count(), 2);
        assert_eq!(lines[6].matches("2001:db8:1::/64").count(), 4);
    }
}
