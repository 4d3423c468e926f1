//! `api`: compares the public API of the libraries with the snapshots in `docs/api`, so that no
//! change of it is made unseen.
//!
//! The text is taken from the pages of rustdoc, which each stable toolchain makes. Hidden items are
//! not in it, nor are the implementations that a type gets from its parts or from other crates. A
//! newer rustdoc may print the same item in other words; then the snapshots are made again.

use std::fs;
use std::path::Path;

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "api",
    args: "[--bless]",
    about: "the public API of the libraries against docs/api; --bless records it",
    run,
};

/// The libraries that are published.
const LIBRARIES: &[&str] = &["codex-core", "codex-storage", "codex-backup", "codex-crypto"];

/// The maximum number of differences that an error shows.
const SHOWN_MAX: usize = 20;

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let bless = words.contains("--bless");
    COMMAND.done(words)?;
    // The same call as in `check`, so that its pages are used again.
    let mut cargo = workspace.cargo("doc --quiet --workspace --no-deps");
    cargo.env_flags("RUSTDOCFLAGS", "--deny warnings").quiet()?;
    let (pages, folder) = (workspace.target()?.join("doc"), workspace.root.join("docs/api"));
    let (mut lines, mut changes) = (0, Vec::new());
    for library in LIBRARIES {
        let found = snapshot(&pages.join(library.replace('-', "_")))?;
        lines += found.lines().count();
        let path = folder.join(format!("{library}.txt"));
        if bless {
            let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &found));
            written.map_err(|e| format!("{}: {e}", path.display()))?;
        } else {
            let known = fs::read_to_string(&path).unwrap_or_default();
            changes
                .extend(differences(&known, &found).map(|change| format!("{library}: {change}")));
        }
    }
    if changes.is_empty() {
        return Ok(format!("{lines} lines"));
    }
    let (count, more) = (changes.len(), changes.len() > SHOWN_MAX);
    changes.truncate(SHOWN_MAX);
    let rest = if more { "\n  ..." } else { "" };
    Err(format!(
        "{count} lines differ from docs/api:\n  {}{rest}\nif the change is meant, record it with \
         `cargo xtask api --bless` and tell of it in CHANGELOG.md",
        changes.join("\n  ")
    ))
}

/// Returns the lines that only one of the texts has, each with the item that it belongs to.
fn differences(known: &str, found: &str) -> impl Iterator<Item = String> {
    let (known, found) = (named(known), named(found));
    let gone: Vec<_> = known.iter().filter(|line| !found.contains(line)).cloned().collect();
    let new: Vec<_> = found.iter().filter(|line| !known.contains(line)).cloned().collect();
    let gone = gone.into_iter().map(|line| format!("- {line}"));
    gone.chain(new.into_iter().map(|line| format!("+ {line}")))
}

/// Returns the lines of a snapshot, each after the name of its item.
fn named(text: &str) -> Vec<String> {
    let mut item = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with(' ') {
            lines.push(format!("{item}: {}", line.trim()));
        } else {
            item = line;
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Returns the items of the library whose pages are in `folder`.
fn snapshot(folder: &Path) -> Outcome<String> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut text = String::new();
    for name in items(&read("all.html")?) {
        text.push_str(name.trim_end_matches(".html"));
        text.push('\n');
        for line in lines(&read(&name)?) {
            text.push_str("    ");
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// Returns the pages of all items, which the page `all` names. Pages of earlier builds are not
/// among them.
fn items(all: &str) -> Vec<String> {
    let targets = all.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let is_item = |target: &&str| {
        let is_page = target.strip_suffix(".html").is_some_and(|name| !name.ends_with("index"));
        is_page && !target.starts_with("..") && !target.contains("://") && *target != "all.html"
    };
    let mut items: Vec<String> = targets.filter(is_item).map(str::to_owned).collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// Returns the declaration of an item, then its methods and implementations, sorted.
fn lines(page: &str) -> Vec<String> {
    // What a type gets from its parts and from other crates stands at the end of its page.
    let ends = ["id=\"synthetic-implementations\"", "id=\"blanket-implementations\""];
    let end = ends.iter().filter_map(|end| page.find(end)).min().unwrap_or(page.len());
    let page = page.get(..end).unwrap_or(page);
    let mut lines: Vec<String> = between(page, "<pre class=\"rust item-decl\">", "</pre>")
        .flat_map(|html| plain(html).lines().map(one_line).collect::<Vec<_>>())
        .filter(|line| !line.is_empty())
        .collect();
    // Of an implementation of a trait, the methods are those of the trait.
    let traits = page.find("id=\"trait-implementations\"").unwrap_or(page.len());
    let (own, of_traits) = page.split_at(traits);
    let mut rest: Vec<String> = headers(own, '4').chain(headers(of_traits, '3')).collect();
    // A marker of the compiler, which `PartialEq` brings.
    rest.retain(|line| !line.starts_with("impl StructuralPartialEq for "));
    rest.sort_unstable();
    rest.dedup();
    lines.append(&mut rest);
    lines
}

/// Returns the headers of items of this level: 4 for a method, 3 for an implementation.
fn headers(page: &str, level: char) -> impl Iterator<Item = String> {
    let texts = page.split("class=\"code-header\">").skip(1);
    texts.filter_map(move |rest| {
        let (text, end) = rest.split_once("</h")?;
        end.starts_with(level).then(|| one_line(&plain(text)))
    })
}

/// Returns the parts of `page` between `start` and the next `end`.
fn between<'a>(page: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

/// Returns the text of HTML, without its tags and without the buttons that open a list.
fn plain(html: &str) -> String {
    let mut text = String::new();
    // An attribute before a declaration is a block of its own.
    let html = html.replace("</div>", " ");
    for (n, part) in html.split("<summary").enumerate() {
        let part = if n == 0 { part } else { part.split_once("</summary>").map_or("", |(_, b)| b) };
        for (n, piece) in part.split('<').enumerate() {
            let piece = if n == 0 { piece } else { piece.split_once('>').map_or("", |(_, b)| b) };
            text.push_str(piece);
        }
    }
    for (code, letter) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'")] {
        text = text.replace(code, letter);
    }
    text.replace("&nbsp;", " ").replace("&amp;", "&")
}

/// Returns the words of `text` on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{differences, items, lines};

    #[test]
    fn a_page_gives_its_declaration_its_methods_and_its_traits() {
        let page = r#"<pre class="rust item-decl"><code>pub enum Form {
    <details><summary><span>Show 2 variants</span></summary>    Wal,
    Ledger,
</details>}</code></pre>
<h3 class="code-header">impl <a>Form</a></h3>
<h4 class="code-header">pub fn <a href="x">all</a>() -&gt; &amp;'static [Form]</h4>
<h2 id="trait-implementations"></h2><h3 class="code-header">impl Clone for Form</h3>
<h4 class="code-header">fn clone(&amp;self) -&gt; Form</h4>
<h2 id="synthetic-implementations"></h2><h3 class="code-header">impl Send for Form</h3>"#;
        let declared = ["pub enum Form {", "Wal,", "Ledger,", "}"];
        let rest = ["impl Clone for Form", "pub fn all() -> &'static [Form]"];
        assert_eq!(lines(page), [&declared[..], &rest].concat());
    }

    #[test]
    fn the_list_of_items_names_their_pages() {
        let all = r##"<a href="../a/index.html"></a><a href="index.html"></a><a href="#structs">
<a href="struct.S.html"></a><a href="m/enum.E.html"></a><a href="https://x/y.html"></a>"##;
        assert_eq!(items(all), ["m/enum.E.html", "struct.S.html"]);
    }

    #[test]
    fn a_difference_names_its_item() {
        let known = "enum.Form\n    Wal,\n    Ledger,\n";
        let found = "enum.Form\n    Wal,\n    Rows,\nstruct.New\n";
        let changes: Vec<_> = differences(known, found).collect();
        assert_eq!(changes, ["- enum.Form: Ledger,", "+ enum.Form: Rows,", "+ struct.New"]);
    }
}
