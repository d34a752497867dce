//! Completion in bash, zsh and fish: their files are made from the command line's definition, and ask the program itself
//! about the words of iproute2's grammar, of which it knows names from the live tables too.

use super::complete::Place;
use super::lex::split_open;
use super::live::LiveRouter;
use super::resolve::Tree;
use crate::control::find_socket;
use crate::grammar::parse_options;
use clap_complete::Shell;
use std::io::{self, Write};
use std::path::Path;

/// The hidden command that the files call.
pub(crate) const ASK: &str = "__complete";

/// Options before the object that have a value, as patterns of these shells.
const VALUED: &str = "-n|-name|--name|-socket|--socket|-f|-family|-b|-batch";

/// Writes the completion file of a shell.
pub(crate) fn script(shell: Shell, mut program: clap::Command, out: &mut dyn Write) -> io::Result<()> {
    let words: Vec<String> = program
        .get_subcommands()
        .filter(|c| c.get_arguments().any(|a| a.get_id() == "words"))
        .map(|c| c.get_name().to_owned())
        .chain(["ip".to_owned()])
        .collect();
    let mut made = Vec::new();
    clap_complete::generate(shell, &mut program, "duet", &mut made);
    let made = String::from_utf8_lossy(&made).into_owned();
    let made = match shell {
        Shell::Bash => made.replacen("_duet() {\n", &bash(&words.join("|")), 1),
        Shell::Zsh => made.replacen("_duet() {\n", &zsh(&words.join("|")), 1),
        Shell::Fish => made + &fish(&words.join(" ")),
        _ => made,
    };
    out.write_all(made.as_bytes())
}

fn bash(words: &str) -> String {
    format!(
        r#"_duet_words() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" head IFS=$'\n'
    local cur="${{line##*[[:space:]]}}"
    COMPREPLY=( $("${{COMP_WORDS[0]}}" {ASK} bash "$line" 2>/dev/null) )
    # Readline takes a colon for the end of a word.
    if [[ "$cur" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        head="${{cur%"${{cur##*:}}"}}"
        COMPREPLY=( "${{COMPREPLY[@]#"$head"}}" )
    fi
}}

_duet() {{
    # Options in front, some with a value.
    local at=1
    while [[ "${{COMP_WORDS[at]}}" == -* ]]; do
        case "${{COMP_WORDS[at]}}" in {VALUED}) (( at++ )) ;; esac
        (( at++ ))
    done
    case "${{COMP_WORDS[at]}}" in
        {words}) if [[ "$COMP_CWORD" -gt "$at" ]]; then _duet_words; return 0; fi ;;
    esac
"#
    )
}

fn zsh(words: &str) -> String {
    format!(
        r#"_duet_words() {{
    local -a found
    found=("${{(@f)$("${{words[1]}}" {ASK} zsh "${{(j: :)words[1,CURRENT]}}" 2>/dev/null)}}")
    if [[ -n "$found" ]]; then _describe 'duet' found; fi
}}

_duet() {{
    # Options in front, some with a value.
    local at=2
    while [[ "${{words[at]}}" == -* ]]; do
        case "${{words[at]}}" in {VALUED}) (( at++ )) ;; esac
        (( at++ ))
    done
    case "${{words[at]}}" in
        {words}) if (( CURRENT > at )); then _duet_words; return; fi ;;
    esac
"#
    )
}

fn fish(words: &str) -> String {
    format!("complete -c duet -n \"__fish_seen_subcommand_from {words}\" -f -a '(duet {ASK} fish (commandline -cp))'\n")
}

/// What may stand at the end of a line that begins with the program's name: one per line, with a word about it where the
/// shell shows one. A router that does not answer has nothing to offer.
pub(crate) fn ask(shell: &str, line: &str, out: &mut dyn Write) -> io::Result<()> {
    let line = line.trim_start();
    let Some((_, typed)) = line.split_once(char::is_whitespace) else { return Ok(()) };
    let tree = Tree::new(&crate::app::definition());
    // The router that the line is about.
    let words = split_open(typed).0.concat();
    let words: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
    let options = parse_options(&words).map(|(o, _)| o).unwrap_or_default();
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref());
    let mut live = LiveRouter::new(socket.as_deref().unwrap_or(Path::new("/nonexistent")));
    for item in Place::at_end_of(typed.trim_start()).items(&tree, &mut live).iter().filter(|i| i.literal) {
        match shell {
            "zsh" => writeln!(out, "{}:{}", item.text.replace(':', "\\:"), item.help)?,
            "fish" => writeln!(out, "{}\t{}", item.text, item.help)?,
            _ => writeln!(out, "{}", item.text)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(shell: &str, line: &str) -> String {
        let mut out = Vec::new();
        ask(shell, line, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn words_of_the_grammar() {
        for (line, want) in [
            ("duet route a", "add\nappend\n"),
            ("duet route add 10.0.0.0/8 vi", "via\n"),
            ("./duet  ip route add 10.0.0.0/8 on", "onlink\n"),
            ("duet count add r", "route\n"),
            ("duet route show proto bg", "bgp\n"),
            ("duet route add 2001:db8::/32 vi", "via\n"),
            ("duet", ""),
            ("", ""),
        ] {
            assert_eq!(said("bash", line), want, "{line}");
        }
        assert!(said("zsh", "duet route add 10.0.0.0/8 vi").starts_with("via:the gateway"));
        assert!(said("fish", "duet route add 10.0.0.0/8 vi").starts_with("via\tthe gateway"));
    }
}
