//! Statements that pass without credit: those that only set a session up, and those that only give back.
//!
//! A tenant without credit must be able to connect with any driver, to end its transaction, and to return its handles
//! (DESIGN 5). A batch is exempt only if every statement in it is; what is not recognised is not exempt.

use super::lexer::Lexeme;

/// Options of SET that take ON or OFF.
const SWITCHES: &[&str] = &[
    "ANSI_DEFAULTS",
    "ANSI_NULL_DFLT_OFF",
    "ANSI_NULL_DFLT_ON",
    "ANSI_NULLS",
    "ANSI_PADDING",
    "ANSI_WARNINGS",
    "ARITHABORT",
    "ARITHIGNORE",
    "CONCAT_NULL_YIELDS_NULL",
    "CURSOR_CLOSE_ON_COMMIT",
    "FMTONLY",
    "FORCEPLAN",
    "IMPLICIT_TRANSACTIONS",
    "NOCOUNT",
    "NOEXEC",
    "NO_BROWSETABLE",
    "NUMERIC_ROUNDABORT",
    "PARSEONLY",
    "QUOTED_IDENTIFIER",
    "REMOTE_PROC_TRANSACTIONS",
    "XACT_ABORT",
];

/// Options of SET that take one value.
const VALUES: &[&str] = &[
    "DATEFIRST",
    "DATEFORMAT",
    "DEADLOCK_PRIORITY",
    "LANGUAGE",
    "LOCK_TIMEOUT",
    "QUERY_GOVERNOR_COST_LIMIT",
    "ROWCOUNT",
    "TEXTSIZE",
];

/// Words that begin an exempt statement or go on with one, so that they are not taken for a transaction's name.
const STARTS: &[&str] = &[
    "WITH", "SET", "USE", "BEGIN", "COMMIT", "ROLLBACK", "SAVE", "IF", "EXEC", "EXECUTE", "END",
];

/// One-word statements: behind `COMMIT TRAN` they would look like a name.
const BARE: &[&str] = &[
    "SHUTDOWN",
    "CHECKPOINT",
    "RECONFIGURE",
    "RETURN",
    "BREAK",
    "CONTINUE",
    "REVERT",
];

/// Procedures that only give handles back; their one argument is a number.
const RETURNING: &[&str] = &["sp_unprepare", "sp_cursorunprepare", "sp_cursorclose"];

/// Nesting of IF and BEGIN … END that is followed; drivers use two.
const DEPTH_MAX: u32 = 4;

/// True if `lexemes` is one or more statements and each of them is exempt.
#[must_use]
pub fn all_exempt(lexemes: &[Lexeme<'_>]) -> bool {
    let mut parser = Parser { rest: lexemes };
    parser.skip_semicolons();
    let mut statements = 0;
    while !parser.rest.is_empty() {
        if parser.statement(DEPTH_MAX).is_none() {
            return false;
        }
        statements += 1;
        parser.skip_semicolons();
    }
    statements > 0
}

struct Parser<'a, 't> {
    rest: &'a [Lexeme<'t>],
}

impl<'t> Parser<'_, 't> {
    fn peek(&self) -> Option<Lexeme<'t>> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<Lexeme<'t>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.peek()?.is(word).then(|| self.rest = &self.rest[1..])
    }

    fn symbol(&mut self, symbol: char) -> Option<()> {
        (self.peek()? == Lexeme::Symbol(symbol)).then(|| self.rest = &self.rest[1..])
    }

    fn skip_semicolons(&mut self) {
        while self.symbol(';').is_some() {}
    }

    fn statement(&mut self, depth: u32) -> Option<()> {
        let Lexeme::Word(start) = self.next()? else {
            return None;
        };
        match start.to_ascii_uppercase().as_str() {
            "SET" => self.set(),
            "USE" => self.next()?.name().map(drop),
            "BEGIN" if self.transaction_word().is_some() => self.begin_transaction(),
            "COMMIT" => self.commit(),
            "ROLLBACK" => {
                self.end_words();
                Some(())
            }
            "SAVE" => {
                self.transaction_word()?;
                self.transaction_name()
            }
            "IF" => self.if_trancount(depth),
            "EXEC" | "EXECUTE" => self.exec_returning(),
            _ => None,
        }
    }

    fn transaction_word(&mut self) -> Option<()> {
        self.word("TRAN").or_else(|| self.word("TRANSACTION"))
    }

    fn transaction_name(&mut self) -> Option<()> {
        let name = self.peek()?;
        let text = name.name()?;
        let goes_on = || STARTS.iter().chain(BARE).any(|word| name.is(word));
        if matches!(name, Lexeme::Word(_)) && goes_on() || text.is_empty() {
            return None;
        }
        self.next().map(drop)
    }

    fn begin_transaction(&mut self) -> Option<()> {
        let _named = self.transaction_name();
        if self.word("WITH").is_some() {
            self.word("MARK")?;
            if matches!(self.peek(), Some(Lexeme::Text(_))) {
                self.next()?;
            }
        }
        Some(())
    }

    fn end_words(&mut self) {
        if self.transaction_word().is_some() {
            let _named = self.transaction_name();
        } else {
            let _noise = self.word("WORK");
        }
    }

    fn commit(&mut self) -> Option<()> {
        self.end_words();
        if self.word("WITH").is_some() {
            self.symbol('(')?;
            self.word("DELAYED_DURABILITY")?;
            self.symbol('=')?;
            self.word("ON").or_else(|| self.word("OFF"))?;
            self.symbol(')')?;
        }
        Some(())
    }

    /// `IF @@TRANCOUNT > 0 statement`, or with BEGIN … END around several.
    fn if_trancount(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.word("@@TRANCOUNT")?;
        while matches!(self.peek()?, Lexeme::Symbol('>' | '=' | '<' | '!')) {
            self.next()?;
        }
        let Lexeme::Number(_) = self.next()? else {
            return None;
        };
        let block = self.peek()?.is("BEGIN")
            && !self
                .rest
                .get(1)
                .is_some_and(|second| second.is("TRAN") || second.is("TRANSACTION"));
        if !block {
            return self.statement(depth);
        }
        self.next()?;
        loop {
            self.skip_semicolons();
            if self.word("END").is_some() {
                return Some(());
            }
            self.statement(depth)?;
        }
    }

    fn set(&mut self) -> Option<()> {
        let option = self.next()?;
        let Lexeme::Word(name) = option else {
            return None;
        };
        if option.is("TRANSACTION") {
            return self.isolation_level();
        }
        if VALUES.iter().any(|v| v.eq_ignore_ascii_case(name)) {
            let _sign = self.symbol('-');
            return match self.next()? {
                Lexeme::Number(_) | Lexeme::Text(_) => Some(()),
                Lexeme::Word(value) if !value.starts_with("@@") => Some(()),
                Lexeme::Quoted(_) => Some(()),
                _ => None,
            };
        }
        let switch = |name: &str| {
            SWITCHES
                .iter()
                .any(|s| s.eq_ignore_ascii_case(name))
                .then_some(())
        };
        switch(name)?;
        while self.symbol(',').is_some() {
            switch(self.next()?.name()?)?;
        }
        self.word("ON").or_else(|| self.word("OFF"))
    }

    fn isolation_level(&mut self) -> Option<()> {
        self.word("ISOLATION")?;
        self.word("LEVEL")?;
        if self.word("READ").is_some() {
            return self.word("COMMITTED").or_else(|| self.word("UNCOMMITTED"));
        }
        if self.word("REPEATABLE").is_some() {
            return self.word("READ");
        }
        self.word("SERIALIZABLE").or_else(|| self.word("SNAPSHOT"))
    }

    fn exec_returning(&mut self) -> Option<()> {
        let procedure = self.next()?.name()?;
        RETURNING
            .iter()
            .any(|r| r.eq_ignore_ascii_case(procedure))
            .then_some(())?;
        match self.next()? {
            Lexeme::Number(_) => Some(()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::all_exempt;
    use crate::gate::lexer::lex;

    fn exempt(text: &str) -> bool {
        lex(text).is_some_and(|lexemes| all_exempt(&lexemes))
    }

    #[test]
    fn what_drivers_send_behind_the_users_back_is_exempt() {
        for text in [
            "SET ARITHABORT ON;SET CONCAT_NULL_YIELDS_NULL ON;SET ANSI_NULLS ON;SET TEXTSIZE 2147483647;",
            "set ansi_nulls on\nset datefirst 7\nset dateformat mdy\nset language us_english\nset transaction isolation level read committed\nset xact_abort off",
            "use [demo]",
            "BEGIN TRAN",
            "COMMIT TRAN BEGIN TRAN",
            "BEGIN TRANSACTION [my tran] WITH MARK 'x'",
            "set implicit_transactions off IF @@TRANCOUNT > 0 COMMIT TRAN ",
            "IF @@TRANCOUNT > 0 ROLLBACK TRAN",
            "IF @@TRANCOUNT > 0 COMMIT TRAN WITH (DELAYED_DURABILITY = ON)",
            "SET IMPLICIT_TRANSACTIONS ON; IF @@TRANCOUNT = 0 BEGIN BEGIN TRAN IF @@TRANCOUNT = 2 COMMIT TRAN END",
            "EXEC sp_unprepare 1;EXEC sp_unprepare 2;EXEC sp_cursorunprepare 3;",
            "SET LOCK_TIMEOUT -1",
            "SET ANSI_NULLS, QUOTED_IDENTIFIER ON",
            "rollback",
            "SAVE TRAN a",
            "/* pool */ ROLLBACK WORK -- end",
        ] {
            assert!(exempt(text), "{text}");
        }
    }

    #[test]
    fn everything_else_needs_credit() {
        for text in [
            "",
            ";",
            "SELECT 1",
            "SET @x = (SELECT 1)",
            "SET ROWCOUNT 1 SELECT * FROM events",
            "SET LANGUAGE @@VERSION",
            "SET LOCK_TIMEOUT 1CHECKPOINT",
            "SET LOCK_TIMEOUT 1SELECT",
            "EXEC sp_unprepare 1SHUTDOWN",
            "SET NOCOUNT ON -- x\rSELECT * FROM events",
            "SET NOCOUNT ON -- x\u{2028}SELECT * FROM events\r\n",
            "BEGIN SELECT 1 END",
            "COMMIT TRAN SELECT * FROM events",
            "COMMIT TRAN SHUTDOWN",
            "COMMIT; SELECT 1",
            "IF @@TRANCOUNT > 0 SELECT 1",
            "IF (SELECT 1) > 0 COMMIT",
            "IF @@TRANCOUNT > (SELECT count(*) FROM t) COMMIT",
            "IF @@TRANCOUNT > 0 COMMIT ELSE SELECT 1",
            "IF @@TRANCOUNT = 0 BEGIN SELECT 1 END",
            "EXEC sp_unprepare 1, (SELECT 1)",
            "EXEC sp_who",
            "USE demo SELECT 1",
            "USE demo; DELETE t",
            "SET NOCOUNT ON DECLARE @x int",
            "SET ANSI_NULLS ON, x",
            "SET IDENTITY_INSERT t ON",
            "ROLLBACK 'unterminated",
            "IF @@TRANCOUNT > 0 IF @@TRANCOUNT > 0 IF @@TRANCOUNT > 0 IF @@TRANCOUNT > 0 IF @@TRANCOUNT > 0 COMMIT",
        ] {
            assert!(!exempt(text), "{text}");
        }
    }
}
