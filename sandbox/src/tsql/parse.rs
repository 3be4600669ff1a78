//! The statement reader: takes control flow and session statements itself and hands queries to `sqlparser`.

use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::dialect::TSql;
use super::{Declaration, Stmt, SyntaxError};

/// Depth of nested blocks and expressions; deeper text is refused before it costs the stack.
const DEPTH_MAX: usize = 40;

pub(super) type Parsed<T> = Result<T, ParserError>;

/// Reads a batch.
///
/// # Errors
/// The text is not T-SQL, or not the T-SQL read here.
pub(crate) fn parse(text: &str) -> Result<Vec<Stmt>, SyntaxError> {
    with_reader(text, |reader| reader.statements(&[]))
}

/// Reads the parameter declarations of `sp_executesql` and `sp_prepare`: `@P1 int, @P2 nvarchar(4000) OUTPUT`.
///
/// # Errors
/// The text is not a list of declarations.
pub(crate) fn parse_declarations(text: &str) -> Result<Vec<Declaration>, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    with_reader(text, |reader| {
        let list = reader.declarations()?;
        match reader.p.peek_token_ref().token {
            Token::EOF => Ok(list),
            _ => reader.unexpected(),
        }
    })
}

fn with_reader<T>(text: &str, run: impl FnOnce(&mut Reader<'_>) -> Parsed<T>) -> Result<T, SyntaxError> {
    let dialect = TSql::default();
    let parser = Parser::new(&dialect).with_recursion_limit(DEPTH_MAX);
    let parser = parser.try_with_sql(text).map_err(|e| syntax_error(&e))?;
    let mut reader = Reader {
        p: parser,
        depth: 0,
        last_word: String::new(),
    };
    run(&mut reader).map_err(|e| syntax_error(&e))
}

/// `sqlparser` says what it found only in words: "Expected: …, found: X at Line: 1, Column: 5".
fn syntax_error(error: &ParserError) -> SyntaxError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "found: too deeply nested text",
    };
    let (before, place) = text.split_once(" at Line: ").unwrap_or((text, "1"));
    let near = before.split_once("found: ").map_or("", |(_, near)| near);
    let line = place
        .split(',')
        .next()
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(1);
    let near = if near == "EOF" { "" } else { near };
    SyntaxError {
        near: near.chars().take(128).collect(),
        keyword: is_keyword(near),
        line,
    }
}

/// True for the words that T-SQL reserves, of which error 156 speaks.
fn is_keyword(word: &str) -> bool {
    const RESERVED: [&str; 40] = [
        "ALL", "ALTER", "AND", "ANY", "AS", "BEGIN", "BETWEEN", "BY", "CASE", "CREATE", "CROSS", "DECLARE",
        "DELETE", "DISTINCT", "DROP", "ELSE", "END", "EXEC", "EXISTS", "FROM", "GROUP", "HAVING", "IF", "IN",
        "INNER", "INSERT", "INTO", "IS", "JOIN", "LEFT", "LIKE", "NOT", "ON", "OR", "ORDER", "SELECT", "SET",
        "TOP", "UPDATE", "WHERE",
    ];
    RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(word))
}

pub(super) struct Reader<'a> {
    pub(super) p: Parser<'a>,
    depth: usize,
    last_word: String,
}

impl Reader<'_> {
    pub(super) fn unexpected<T>(&self) -> Parsed<T> {
        let found = self.p.peek_token_ref();
        Err(ParserError::ParserError(format!(
            "found: {}{}",
            found.token, found.span.start
        )))
    }

    /// The next token as an upper-case bare word, if it is one.
    pub(super) fn peek_word(&self, ahead: usize) -> Option<String> {
        match self.p.peek_nth_token(ahead).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        }
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_word(0).is_some_and(|w| w == word);
        if found {
            self.p.advance_token();
        }
        found
    }

    pub(super) fn peek_words(&self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(i, word)| self.peek_word(i).is_some_and(|w| w == *word))
    }

    pub(super) fn take_words(&mut self, words: &[&str]) -> bool {
        let found = self.peek_words(words);
        if found {
            words.iter().for_each(|_| self.p.advance_token());
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            self.unexpected()
        }
    }

    pub(super) fn at_end(&self) -> bool {
        matches!(self.p.peek_token_ref().token, Token::EOF | Token::SemiColon)
    }

    pub(super) fn skip_semicolons(&mut self) {
        while self.p.consume_token(&Token::SemiColon) {}
    }

    /// Statements up to the end or to one of the closing word sequences, which are left in place.
    pub(super) fn statements(&mut self, closers: &[&[&str]]) -> Parsed<Vec<Stmt>> {
        let mut list = Vec::new();
        loop {
            self.skip_semicolons();
            let closed = closers.iter().any(|words| self.peek_words(words));
            if closed || (closers.is_empty() && self.p.peek_token_ref().token == Token::EOF) {
                return Ok(list);
            }
            list.push(self.statement(list.is_empty() && self.depth == 0)?);
        }
    }

    pub(super) fn statement(&mut self, first: bool) -> Parsed<Stmt> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ParserError::RecursionLimitExceeded);
        }
        let stmt = self.statement_here(first);
        self.depth -= 1;
        stmt
    }

    fn statement_here(&mut self, first: bool) -> Parsed<Stmt> {
        let Some(word) = self.peek_word(0) else {
            return self.sql_or_procedure(first);
        };
        self.last_word.clone_from(&word);
        match word.as_str() {
            "SET" => self.set(),
            "USE" => self.use_database(),
            "DECLARE" => {
                self.p.advance_token();
                Ok(Stmt::Declare(self.declarations()?))
            }
            "PRINT" => {
                self.p.advance_token();
                Ok(Stmt::Print(self.p.parse_expr()?))
            }
            "RAISERROR" => self.raiserror(),
            "THROW" => self.throw(),
            "BEGIN" => self.begin(),
            "COMMIT" | "ROLLBACK" | "SAVE" => self.transaction_end(&word),
            "IF" => self.conditional(),
            "WHILE" => {
                self.p.advance_token();
                let condition = self.p.parse_expr()?;
                Ok(Stmt::While {
                    condition,
                    body: Box::new(self.statement(false)?),
                })
            }
            "BREAK" | "CONTINUE" => {
                self.p.advance_token();
                Ok(if word == "BREAK" {
                    Stmt::Break
                } else {
                    Stmt::Continue
                })
            }
            "RETURN" => {
                self.p.advance_token();
                let value = if self.at_end() || self.at_statement() {
                    None
                } else {
                    Some(self.p.parse_expr()?)
                };
                Ok(Stmt::Return(value))
            }
            "WAITFOR" => {
                self.p.advance_token();
                self.expect_word("DELAY")?;
                Ok(Stmt::WaitFor(self.p.parse_expr()?))
            }
            "EXEC" | "EXECUTE" => {
                self.p.advance_token();
                self.exec()
            }
            "DBCC" | "CHECKPOINT" | "GRANT" | "DENY" | "REVOKE" | "RECONFIGURE" => self.without_effect(),
            "INSERT" if self.peek_word(1).is_some_and(|w| w == "BULK") => self.insert_bulk(),
            "INSERT" if self.is_insert_exec() => self.insert_exec(),
            "CREATE" | "ALTER" | "DROP" => self.definition(),
            _ => self.sql_or_procedure(first),
        }
    }

    /// True if the next word starts a statement, so that an argument list or a RETURN ends before it.
    pub(super) fn at_statement(&self) -> bool {
        const STARTS: &[&str] = &[
            "SET",
            "USE",
            "DECLARE",
            "PRINT",
            "RAISERROR",
            "THROW",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SAVE",
            "IF",
            "ELSE",
            "END",
            "WHILE",
            "BREAK",
            "CONTINUE",
            "RETURN",
            "WAITFOR",
            "EXEC",
            "EXECUTE",
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "WITH",
            "CREATE",
            "ALTER",
            "DROP",
            "TRUNCATE",
            "DBCC",
            "GRANT",
            "DENY",
            "REVOKE",
        ];
        self.peek_word(0)
            .is_some_and(|word| STARTS.contains(&word.as_str()))
    }

    /// `sqlparser`'s statement; or, for the first word of a batch that is none of its keywords, a procedure's name.
    pub(super) fn sql_or_procedure(&mut self, first: bool) -> Parsed<Stmt> {
        let token = self.p.peek_token_ref().token.clone();
        let procedure = match &token {
            Token::Word(w) => w.quote_style.is_some() || w.keyword == Keyword::NoKeyword,
            _ => false,
        };
        if procedure && first {
            return self.exec();
        }
        if procedure {
            return self.unexpected();
        }
        let statement = self.p.parse_statement()?;
        if self.take_word("OPTION") {
            self.skip_parenthesised()?;
        }
        Ok(Stmt::Sql(Box::new(statement)))
    }

    pub(super) fn skip_parenthesised(&mut self) -> Parsed<()> {
        self.p.expect_token(&Token::LParen)?;
        let mut open = 1_u32;
        while open > 0 {
            match self.p.next_token().token {
                Token::LParen => open += 1,
                Token::RParen => open -= 1,
                Token::EOF => return self.unexpected(),
                _ => {}
            }
        }
        Ok(())
    }

    fn without_effect(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        while !self.at_end() && !self.at_statement() {
            self.p.advance_token();
        }
        Ok(Stmt::Nothing)
    }

    fn use_database(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        Ok(Stmt::Use(self.p.parse_identifier()?.value))
    }

    pub(super) fn variable(&mut self) -> Parsed<String> {
        match &self.p.peek_token_ref().token {
            Token::Word(w) if w.quote_style.is_none() && w.value.starts_with('@') => {
                let name = w.value.to_lowercase();
                self.p.advance_token();
                Ok(name)
            }
            _ => self.unexpected(),
        }
    }

    pub(super) fn peek_variable(&self) -> bool {
        matches!(&self.p.peek_token_ref().token, Token::Word(w) if w.quote_style.is_none() && w.value.starts_with('@'))
    }
}
