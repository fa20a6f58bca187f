//! Text set in columns and lines.

/// Breaks `text` at blanks into lines of at most `width` characters, each one behind the first indented by `indent`; a
/// longer word is cut. A line break in the text is kept. At least one line.
pub(crate) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut begun = false;
        for word in paragraph.split(' ') {
            let mut word = word;
            if begun && line.chars().count() + 1 + word.chars().count() <= width {
                line.push(' ');
            } else if begun {
                lines.push(core::mem::replace(&mut line, " ".repeat(indent)));
            }
            begun = true;
            while let Some((cut, _)) = word.char_indices().nth(width.saturating_sub(line.chars().count()).max(1)) {
                let (head, tail) = word.split_at(cut);
                lines.push(core::mem::replace(&mut line, " ".repeat(indent)) + head);
                word = tail;
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// `text` in exactly `width` characters, cut (which a `~` shows) or filled up on the right.
pub(crate) fn left(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    let cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut + "~"
}

/// Names, or a word for there being none.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrap("", 10, 2), [""]);
        assert_eq!(wrap("one two three", 8, 2), ["one two", "  three"]);
        assert_eq!(wrap("one\ntwo", 8, 2), ["one", "two"]);
        assert_eq!(wrap("12345678901 x", 5, 1), ["12345", " 6789", " 01 x"]);
        assert_eq!(wrap("a  b", 8, 0), ["a  b"]);
    }

    #[test]
    fn a_column_is_cut_or_filled() {
        assert_eq!(left("node1", 7), "node1  ");
        assert_eq!(left("gateway", 7), "gateway");
        assert_eq!(left("gateway-2", 7), "gatewa~");
    }
}
