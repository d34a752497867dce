//! `duet top`: the router on one screen, refreshed. Leaves the terminal as it found it, whatever ends it.

mod busy;
mod collect;
mod model;
mod view;

use crate::app::Common;
use crate::control::{ClientError, find_socket};
use crate::grammar::{Failure, exit};
use crate::terminal::{Flags, Guard};
use collect::{News, Snapshot, Wish};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use model::{Ask, Pane, Row};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::style::{Color, Modifier, Style};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What undoes the screen if the program ends otherwise than in order: the other screen, the cursor, colours.
const UNDO: &str = "\u{1b}[?1049l\u{1b}[?25h\u{1b}[0m";

/// `duet top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Which router
    #[command(flatten)]
    pub common: Common,
    /// Seconds between two looks
    #[arg(short = 'd', long, value_name = "SECONDS", default_value = "1")]
    pub delay: f64,
}

/// How a pane is looked at.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    column: usize,
    reverse: bool,
    selected: usize,
}

#[derive(Debug)]
enum Overlay {
    None,
    Help,
    Text { title: String, text: String, scroll: u16 },
}

struct Screen {
    socket: PathBuf,
    new: Option<Box<Snapshot>>,
    old: Option<Box<Snapshot>>,
    trouble: Option<String>,
    pane: Pane,
    views: [View; 7],
    rows: Vec<Row>,
    page: usize,
    overlay: Overlay,
    paused: bool,
    every: Duration,
    colored: bool,
    explained: (Sender<String>, Receiver<String>),
}

/// Runs it.
pub(crate) fn run(args: &TopArgs) -> Result<(), Failure> {
    let options = args.common.clone().options();
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let hint = "\"duet stats\" prints the same numbers once, \"duet monitor\" follows what happens";
        return Err(Failure::with_hint(exit::USAGE, "\"duet top\" needs a terminal.", hint));
    }
    let every = Duration::try_from_secs_f64(args.delay).ok().filter(|d| (0.1..=3600.0).contains(&d.as_secs_f64()));
    let every = every.ok_or_else(|| {
        Failure::with_hint(exit::USAGE, format!("--delay {}: out of range", args.delay), "say 0.1 to 3600 seconds")
    })?;
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    // Said on the ordinary screen, where it stays.
    crate::control::Client::connect(&socket).map_err(|e: ClientError| Failure::from(e))?;
    let (news_tx, news) = channel();
    let (wish, wishes) = channel();
    let of_collector = socket.clone();
    let collector = std::thread::Builder::new()
        .name("collector".into())
        .spawn(move || collect::run(of_collector, Wish { every, routes: false }, &news_tx, &wishes))
        .map_err(|e| Failure::new(exit::REFUSED, format!("Cannot start a thread: {e}")))?;
    let mut screen = Screen {
        socket,
        new: None,
        old: None,
        trouble: None,
        pane: Pane::Ports,
        views: [View::default(); 7],
        rows: Vec::new(),
        page: 1,
        overlay: Overlay::None,
        paused: false,
        every,
        colored: crate::app::color(&options),
        explained: channel(),
    };
    // The busiest first, where there are rates.
    screen.views[2].column = 2;
    screen.views[3].column = 4;
    screen.views[4].column = 1;
    let flags = Flags::default();
    let guard = Guard::new(&flags);
    guard.undo_with(UNDO);
    let restore = guard.restorer();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        before(info);
    }));
    let shown = show(&mut screen, &flags, &news, &wish);
    // A sample that is being taken is not left behind in the router, unless that keeps us waiting.
    drop((wish, news));
    guard.undo_with("");
    let _ = std::panic::take_hook();
    // A terminal that is gone has nothing to be put right.
    let left = execute!(io::stdout(), LeaveAlternateScreen, crossterm::cursor::Show);
    let cooked = disable_raw_mode();
    drop(guard);
    let until = std::time::Instant::now() + Duration::from_secs(2);
    while !collector.is_finished() && std::time::Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    shown.and(left).and(cooked).map_err(|e| Failure::new(exit::REFUSED, format!("The terminal is gone: {e}")))
}

fn show(s: &mut Screen, flags: &Flags, news: &Receiver<News>, wish: &Sender<Wish>) -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut stale = true;
    loop {
        if flags.stop.load(Ordering::Relaxed) || flags.interrupt.load(Ordering::Relaxed) {
            return Ok(());
        }
        while let Ok(news) = news.try_recv() {
            stale |= !s.paused;
            s.take(news);
        }
        while let Ok(text) = s.explained.1.try_recv() {
            if let Overlay::Text { text: shown, .. } = &mut s.overlay {
                *shown = text;
                stale = true;
            }
        }
        if std::mem::take(&mut stale) {
            terminal.draw(|frame| view::draw(frame, s))?;
        }
        if !poll(Duration::from_millis(100))? {
            continue;
        }
        match read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                stale = true;
                let before = s.pane;
                if s.key(key, wish) {
                    return Ok(());
                }
                if (s.pane == Pane::Routes) != (before == Pane::Routes) {
                    s.tell(wish);
                }
            }
            Event::Resize(..) => stale = true,
            _ => {}
        }
    }
}

impl Screen {
    fn index(&self) -> usize {
        Pane::ALL.iter().position(|p| *p == self.pane).unwrap_or(0)
    }

    fn style(&self, modifier: Modifier) -> Style {
        Style::new().add_modifier(modifier)
    }

    /// A colour, where colours are wanted.
    fn color(&self, color: Color) -> Style {
        if self.colored { Style::new().fg(color) } else { Style::new() }
    }

    fn take(&mut self, news: News) {
        match news {
            Ok(new) => {
                self.trouble = None;
                if !self.paused {
                    self.old = self.new.replace(new);
                }
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    /// Does what a key says; true: leave.
    fn key(&mut self, key: KeyEvent, wish: &Sender<Wish>) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return true;
        }
        if let Overlay::Text { scroll, text, .. } = &mut self.overlay {
            let most = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
            match key.code {
                KeyCode::Down | KeyCode::Char('j') => *scroll = scroll.saturating_add(1).min(most),
                KeyCode::Up | KeyCode::Char('k') => *scroll = scroll.saturating_sub(1),
                KeyCode::PageDown | KeyCode::Char(' ') => *scroll = scroll.saturating_add(10).min(most),
                KeyCode::PageUp => *scroll = scroll.saturating_sub(10),
                _ => self.overlay = Overlay::None,
            }
            return false;
        }
        if matches!(self.overlay, Overlay::Help) {
            self.overlay = Overlay::None;
            return false;
        }
        let index = self.index();
        let last = self.rows.len().saturating_sub(1);
        let columns = self.pane.columns().0.len();
        let page = self.page;
        let view = &mut self.views[index];
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Overlay::Help,
            KeyCode::Tab | KeyCode::Right => self.pane = Pane::ALL[(index + 1) % Pane::ALL.len()],
            KeyCode::BackTab | KeyCode::Left => self.pane = Pane::ALL[(index + Pane::ALL.len() - 1) % Pane::ALL.len()],
            KeyCode::Char(c @ '1'..='7') => self.pane = Pane::ALL[c as usize - '1' as usize],
            KeyCode::Down | KeyCode::Char('j') => view.selected = (view.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => view.selected = view.selected.saturating_sub(1),
            KeyCode::PageDown => view.selected = (view.selected + page).min(last),
            KeyCode::PageUp => view.selected = view.selected.saturating_sub(page),
            KeyCode::Home => view.selected = 0,
            KeyCode::End => view.selected = last,
            KeyCode::Char('s') => view.column = (view.column + 1) % columns,
            KeyCode::Char('S') => view.column = (view.column + columns - 1) % columns,
            KeyCode::Char('r') => view.reverse = !view.reverse,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('+') => self.set_interval(self.every * 2, wish),
            KeyCode::Char('-') => self.set_interval(self.every / 2, wish),
            KeyCode::Enter | KeyCode::Char('e') => self.explain(),
            // For the test that a panic leaves the terminal as it was.
            #[cfg(debug_assertions)]
            KeyCode::F(12) => panic!("asked for by F12, in builds for tests alone"),
            _ => {}
        }
        false
    }

    fn set_interval(&mut self, every: Duration, wish: &Sender<Wish>) {
        self.every = every.clamp(Duration::from_millis(125), Duration::from_secs(64));
        self.tell(wish);
    }

    /// Tells the collector what is wanted; it lives as long as this screen.
    fn tell(&self, wish: &Sender<Wish>) {
        let _ = wish.send(Wish { every: self.every, routes: self.pane == Pane::Routes });
    }

    /// Opens what can be said about the selected line.
    fn explain(&mut self) {
        let Some(row) = self.rows.get(self.views[self.index()].selected) else { return };
        let (title, text) = match &row.ask {
            Ask::Nothing => return,
            Ask::Text(text) => (" Why ".to_owned(), text.clone()),
            Ask::To(to) => {
                let (to, socket, tx) = (to.clone(), self.socket.clone(), self.explained.0.clone());
                let title = format!(" explain to {to} ");
                // It may take a moment; the screen goes on meanwhile.
                let asked = std::thread::Builder::new().spawn(move || {
                    let _ = tx.send(explanation(&socket, &to));
                });
                (title, if asked.is_ok() { "Asking the router ...".into() } else { "Cannot start a thread.".into() })
            }
        };
        self.overlay = Overlay::Text { title, text, scroll: 0 };
    }
}

/// The text of `duet explain`.
fn explanation(socket: &std::path::Path, to: &str) -> String {
    let ask = |words: &[&str]| {
        Command::new("/proc/self/exe")
            .args(words)
            .env("DUET_SOCKET", socket)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
    };
    match ask(&["explain", "to", to]) {
        Ok(out) => {
            let said = if out.stdout.is_empty() { &out.stderr } else { &out.stdout };
            String::from_utf8_lossy(said).trim_end().to_owned()
        }
        Err(e) => format!("Cannot run \"duet explain\": {e}"),
    }
}
