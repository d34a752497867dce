//! HTML: escaping, the frame of a page, the style. Everything works without script; there is none.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Write;

/// Light and dark by the reader's own choice; one column that fits a telephone.
pub const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1a1c1f;--bg:#fcfcfb;--dim:#5a6068;--line:#d5d8dc;--link:#0b57a4;--bad:#a4161a;--good:#1b6e3c;--box:#f1f2f3}
@media(prefers-color-scheme:dark){:root{--fg:#e8e9ea;--bg:#15171a;--dim:#a3a9b0;--line:#3a3f45;--link:#8ab8ef;--bad:#ff8d8d;--good:#7fd6a0;--box:#202327}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:1rem/1.5 system-ui,sans-serif}
header,main,footer{max-width:56rem;margin:0 auto;padding:.75rem 1rem}
header{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;border-bottom:1px solid var(--line)}
header b{font-size:1.15rem}header form{margin-left:auto}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.15rem;margin:1.75rem 0 .5rem}h3{font-size:1rem;margin:1.25rem 0 .25rem}
a{color:var(--link)}.dim{color:var(--dim)}footer{color:var(--dim);font-size:.875rem;border-top:1px solid var(--line);margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code,pre,.mono{font-family:ui-monospace,monospace;font-size:.9rem}
pre{background:var(--box);padding:.75rem;overflow-x:auto;border-radius:.25rem;user-select:all;margin:.25rem 0}
label{display:block;margin:.6rem 0 .15rem;font-weight:600}input,select,button{font:inherit;color:inherit;padding:.4rem .6rem;border:1px solid var(--dim);border-radius:.25rem;background:var(--bg);max-width:100%}
button{background:var(--box);cursor:pointer}button.bad{border-color:var(--bad);color:var(--bad)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.note{padding:.6rem .75rem;border-left:4px solid var(--good);background:var(--box)}.note.bad{border-color:var(--bad)}
.up{color:var(--good)}.down{color:var(--bad)}.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;background:var(--bg)}
fieldset{border:1px solid var(--line);border-radius:.25rem;margin:1rem 0;padding:.25rem 1rem 1rem}legend{font-weight:600;padding:0 .35rem}
";

/// Text that is safe in an element or an attribute.
pub fn esc(text: impl std::fmt::Display) -> String {
    let mut out = String::new();
    for c in text.to_string().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// What stands above a page.
pub struct Frame<'a> {
    /// The broker.
    pub broker: &'a str,
    /// The page.
    pub title: &'a str,
    /// Who is logged in, and the token of forms.
    pub session: Option<(&'a str, &'a str)>,
    /// What to say first: whether it is bad, and the text.
    pub note: Option<(bool, String)>,
}

/// A page.
pub fn page(code: StatusCode, frame: &Frame<'_>, body: &str) -> Response {
    let mut html = String::with_capacity(body.len() + 2048);
    let (broker, title) = (esc(frame.broker), esc(frame.title));
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} - {broker}</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header><b>{broker}</b>\n"
    );
    if let Some((who, token)) = frame.session {
        let _ = write!(
            html,
            "<nav aria-label=\"Pages\"><a href=\"/\">Tunnels</a> &nbsp; <a href=\"/account\">Account</a></nav>\n\
             <form method=\"post\" action=\"/logout\">{}<span class=\"dim\">{}</span> <button>Log out</button></form>\n",
            hidden(token),
            esc(who)
        );
    }
    let _ = write!(html, "</header>\n<main id=\"main\">\n<h1>{title}</h1>\n");
    if let Some((bad, text)) = &frame.note {
        let (class, role) = if *bad { ("note bad", "alert") } else { ("note", "status") };
        let _ = writeln!(html, "<p class=\"{class}\" role=\"{role}\">{}</p>", esc(text));
    }
    let _ = write!(html, "{body}</main>\n<footer>A tunnel broker of Duet.</footer>\n</body>\n</html>\n");
    (code, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// The token of a form.
pub fn hidden(token: &str) -> String {
    format!("<input type=\"hidden\" name=\"token\" value=\"{}\">", esc(token))
}

/// A number of bytes for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A moment, as people and programs read it.
pub fn moment(time: Option<i64>) -> String {
    let stamp = time.and_then(|t| jiff::Timestamp::from_second(t).ok());
    stamp.map_or_else(|| "never".into(), |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(esc("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
        assert_eq!([bytes(999), bytes(1500), bytes(2_340_000)], ["999 B", "1.5 kB", "2.3 MB"]);
        assert_eq!(moment(Some(0)), "1970-01-01 00:00 UTC");
    }
}
