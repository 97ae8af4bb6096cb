//! What may be written where somebody looks: colour, a cursor that moves, or plain text alone. Every picture and bar asks here.

use std::io::IsTerminal as _;

/// What a stream takes. `NO_COLOR` and `CLICOLOR=0` mean no colour, `CLICOLOR_FORCE=1` colour in a file or a pipe too; with
/// `TERM=dumb` nothing moves and nothing is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether colours may be used.
    pub colour: bool,
    /// Whether the cursor may be moved: bars, and pictures over each other.
    pub cursor: bool,
}

impl Terminal {
    /// Of standard output.
    pub fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal(), |name| std::env::var(name).ok())
    }

    /// Of standard error.
    pub fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal(), |name| std::env::var(name).ok())
    }

    fn of(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let said = |name: &str| variable(name).filter(|value| !value.is_empty());
        let term = said("TERM");
        // Windows has no TERM.
        let capable = is_terminal && term.map_or(!cfg!(unix), |term| term != "dumb");
        let forced = said("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let wanted = said("CLICOLOR").is_none_or(|value| value != "0");
        let colour = said("NO_COLOR").is_none() && (forced || capable && wanted);
        Self { colour, cursor: capable }
    }

    /// Whether a picture on standard output can be drawn over: neither wrapped by the terminal nor scrolled out of it.
    pub fn can_redraw(self, picture: &str) -> bool {
        let (rows, columns) = console::Term::stdout().size();
        let fits = |line: &str| console::measure_text_width(line) <= usize::from(columns);
        self.cursor && picture.lines().count() < usize::from(rows) && picture.lines().all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_colour_and_cursor_away_or_ask_for_colour() {
        for (is_terminal, variables, colour, cursor) in [
            (true, &[("TERM", "xterm")][..], true, true),
            (false, &[("TERM", "xterm")], false, false),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "1")], false, true),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "")], true, true),
            (true, &[("TERM", "xterm"), ("CLICOLOR", "0")], false, true),
            (true, &[("TERM", "xterm"), ("CLICOLOR", "1")], true, true),
            (true, &[("TERM", "dumb")], false, false),
            (false, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true, false),
            (true, &[("TERM", "xterm"), ("CLICOLOR_FORCE", "0")], true, true),
            (false, &[("CLICOLOR_FORCE", "0")], false, false),
            (false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
            (true, &[("TERM", "xterm"), ("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0")], true, true),
        ] {
            let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.to_string());
            assert_eq!(Terminal::of(is_terminal, variable), Terminal { colour, cursor }, "{is_terminal} {variables:?}");
        }
    }
}
