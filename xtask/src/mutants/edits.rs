//! The changes of each mutant to the sources, from `edits.txt`.

use std::sync::LazyLock;

/// Lines of one source file, and the lines that replace them in the mutant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) mutant: &'static str,
    /// The path from the root, with `/`.
    pub(crate) file: &'static str,
    /// The lines to replace, without indentation, like `replacement`.
    pub(crate) found: Vec<&'static str>,
    replacement: Vec<&'static str>,
}

/// Every edit, in the order of application.
pub(crate) static EDITS: LazyLock<Vec<Edit>> =
    LazyLock::new(|| Edit::list(include_str!("edits.txt")));

impl Edit {
    /// Parses a list of edits such as `edits.txt`.
    pub(crate) fn list(text: &'static str) -> Vec<Self> {
        let mut edits = Vec::<Edit>::new();
        for line in text.lines() {
            if let Some(lines) = edits.last_mut() {
                if let Some(found) = line.strip_prefix('-') {
                    lines.found.push(found.trim());
                    continue;
                }
                if let Some(replacement) = line.strip_prefix('+') {
                    lines.replacement.push(replacement.trim());
                    continue;
                }
            }
            let head = line.split_once(' ').filter(|_| !line.starts_with('#'));
            edits.extend(head.map(|(mutant, file)| Edit {
                mutant,
                file,
                found: Vec::new(),
                replacement: Vec::new(),
            }));
        }
        edits
    }

    /// Returns the number of places at which `text` contains the lines, with any indentation.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.windows(self.found.len().max(1)).filter(|lines| *lines == self.found).count()
    }

    /// Returns `text` with the replacement, which is active only while this mutant is selected.
    /// Returns `None` if `text` does not contain the lines exactly once.
    pub(super) fn apply(&self, text: &str) -> Option<String> {
        if self.count(text) != 1 {
            return None;
        }
        let lines: Vec<&str> = text.lines().collect();
        let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        let at = trimmed.windows(self.found.len()).position(|lines| lines == self.found)?;
        let (before, rest) = lines.split_at(at);
        let chosen = format!("crate::mutant(\"{}\")", self.mutant);
        let replacement = self.replacement.join("\n").replace("MUTANT", &chosen);
        let after = rest.get(self.found.len()..)?;
        Some([&before.join("\n"), &replacement, &after.join("\n"), ""].join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::{EDITS, Edit};
    use crate::mutants::MUTANTS;

    const TEXT: &str = "# Text.

m a.rs
- let a = 1;
- b();
+ let a = if MUTANT { 2 } else { 1 };

n b.rs
- c();
+ c();
+ d();
";

    #[test]
    fn edits_are_read_and_made_where_their_lines_stand_once() {
        let edits = Edit::list(TEXT);
        let [m, n] = edits.as_slice() else { panic!("{edits:?}") };
        assert_eq!((m.mutant, m.file), ("m", "a.rs"));
        assert_eq!(n.replacement, ["c();", "d();"]);
        let made = m.apply("{\n    let a = 1;\n        b();\n}\n").unwrap();
        assert_eq!(made, "{\nlet a = if crate::mutant(\"m\") { 2 } else { 1 };\n}\n");
        assert_eq!(m.apply("let a = 1;\n"), None);
        assert_eq!(n.count("c();\nc();\n"), 2);
        assert_eq!(n.apply("c();\nc();\n"), None);
    }

    #[test]
    fn each_mutant_has_edits_and_each_edit_a_mutant() {
        for mutant in MUTANTS.iter() {
            assert!(EDITS.iter().any(|edit| edit.mutant == mutant.name), "{}", mutant.name);
        }
        for edit in EDITS.iter() {
            assert!(MUTANTS.iter().any(|mutant| mutant.name == edit.mutant), "{}", edit.mutant);
            assert!(!edit.found.is_empty() && !edit.replacement.is_empty(), "{}", edit.mutant);
        }
    }
}
