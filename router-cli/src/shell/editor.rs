//! Editing of the line: the only file that knows reedline.

use super::complete::Place;
use super::live::Live;
use super::resolve::Tree;
use reedline::{
    ColumnarMenu, Completer, CompletionResult, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent,
    ReedlineMenu, Signal, Span, StyledText, Suggestion, default_emacs_keybindings,
};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Lines kept in the history.
const HISTORY: usize = 2000;
const MENU: &str = "completion";

/// What the user did.
pub(crate) enum Input {
    /// A line to execute.
    Line(String),
    /// `?` behind this text, which stays for further typing.
    Help(String),
    /// Ctrl-C: the line is given up.
    Interrupt,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// A line editor with history and completion.
pub(crate) struct Editor {
    reedline: Reedline,
}

impl Editor {
    /// `stop` ends reading from outside, with the terminal put right.
    pub fn new(
        tree: Arc<Tree>,
        live: Box<dyn Live + Send>,
        history: Option<&Path>,
        color: bool,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let mut keys = default_emacs_keybindings();
        let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            keys.add_binding(modifiers, KeyCode::Char('?'), ReedlineEvent::ExecuteHostCommand("?".into()));
        }
        let menu = ColumnarMenu::default().with_name(MENU).with_columns(4).with_marker("> ");
        let mut reedline = Reedline::create()
            .with_completer(Box::new(Words { tree, live }))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_ansi_colors(color)
            .with_highlighter(Box::new(Uncoloured))
            .with_break_signal(stop);
        if let Some(file) = history.and_then(|p| FileBackedHistory::with_file(HISTORY, p.to_owned()).ok()) {
            reedline = reedline.with_history(Box::new(file));
        }
        Editor { reedline }
    }

    /// Waits for the user.
    pub fn read(&mut self, prompt: &str) -> io::Result<Input> {
        match self.reedline.read_line(&Plain(prompt)).map_err(io::Error::other)? {
            Signal::Success(line) => {
                let _ = self.reedline.sync_history();
                Ok(Input::Line(line))
            }
            Signal::HostCommand(_) => {
                let at = self.reedline.current_insertion_point();
                let line = self.reedline.current_buffer_contents();
                Ok(Input::Help(line.get(..at).unwrap_or(line).to_owned()))
            }
            Signal::CtrlD | Signal::ExternalBreak(_) => Ok(Input::End),
            _ => Ok(Input::Interrupt),
        }
    }
}

/// Where the history is kept: in XDG's place for state. None: nowhere.
pub(crate) fn history_file() -> Option<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|h| h.join(".local/state")))?;
    let dir = base.join("duet");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
    Some(dir.join("history"))
}

struct Words {
    tree: Arc<Tree>,
    live: Box<dyn Live + Send>,
}

impl Completer for Words {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let typed = line.get(..pos).unwrap_or(line);
        let place = Place::at_end_of(typed);
        let items = place.items(&self.tree, &mut *self.live);
        let suggestions: Vec<Suggestion> = items
            .into_iter()
            .filter(|i| i.literal)
            .map(|i| Suggestion {
                append_whitespace: !i.text.ends_with('/'),
                value: i.text,
                description: Some(i.help).filter(|h| !h.is_empty()),
                span: Span::new(place.start.min(pos), pos),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// What is typed has the terminal's own colour.
struct Uncoloured;

impl Highlighter for Uncoloured {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut text = StyledText::new();
        text.push((Default::default(), line.to_owned()));
        text
    }
}

struct Plain<'p>(&'p str);

impl Prompt for Plain<'_> {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("... ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = if matches!(search.status, PromptHistorySearchStatus::Failing) { "failing " } else { "" };
        Cow::Owned(format!("({failing}search: {}) ", search.term))
    }
}
