//! The statement reader's control flow: transactions, IF, TRY, messages.

use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::parse::{Parsed, Reader};
use super::{Raise, Stmt};

/// Transactions, control flow, messages.
impl Reader<'_> {
    fn tran_name(&mut self) -> Parsed<Option<String>> {
        if self.peek_variable() {
            return self.variable().map(Some);
        }
        if self.at_end() || self.at_statement() || self.peek_word(0).is_some_and(|w| w == "WITH") {
            return Ok(None);
        }
        match &self.p.peek_token_ref().token {
            Token::Word(_) => Ok(Some(self.p.parse_identifier()?.value)),
            _ => Ok(None),
        }
    }

    fn with_options(&mut self) -> Parsed<()> {
        if self.peek_word(0).is_some_and(|w| w == "WITH") {
            let (mark, delayed) = (self.peek_word(1), self.p.peek_nth_token(1).token == Token::LParen);
            if delayed {
                self.p.advance_token();
                return self.skip_parenthesised();
            }
            if mark.is_some_and(|w| w == "MARK") {
                self.p.advance_token();
                self.p.advance_token();
                if matches!(
                    self.p.peek_token_ref().token,
                    Token::SingleQuotedString(_) | Token::NationalStringLiteral(_)
                ) {
                    self.p.advance_token();
                }
            }
        }
        Ok(())
    }

    pub(super) fn begin(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        self.take_word("DISTRIBUTED");
        if self.take_word("TRAN") || self.take_word("TRANSACTION") {
            self.tran_name()?;
            self.with_options()?;
            return Ok(Stmt::Begin);
        }
        if self.take_word("TRY") {
            let body = self.statements(&[&["END", "TRY"]])?;
            self.take_words(&["END", "TRY"]);
            self.skip_semicolons();
            self.expect_word("BEGIN")?;
            self.expect_word("CATCH")?;
            let catch = self.statements(&[&["END", "CATCH"]])?;
            self.take_words(&["END", "CATCH"]);
            return Ok(Stmt::Try { body, catch });
        }
        let list = self.statements(&[&["END"]])?;
        self.expect_word("END")?;
        Ok(Stmt::Block(list))
    }

    pub(super) fn transaction_end(&mut self, word: &str) -> Parsed<Stmt> {
        self.p.advance_token();
        let tran = self.take_word("TRAN") || self.take_word("TRANSACTION") || self.take_word("WORK");
        let name = if tran { self.tran_name()? } else { None };
        self.with_options()?;
        match (word, name) {
            ("COMMIT", _) => Ok(Stmt::Commit),
            ("ROLLBACK", name) => Ok(Stmt::Rollback(name)),
            (_, Some(name)) => Ok(Stmt::Save(name)),
            _ => self.unexpected(),
        }
    }

    pub(super) fn conditional(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        let condition = self.p.parse_expr()?;
        let then = Box::new(self.statement(false)?);
        let mut semicolons = 0_usize;
        while self.p.consume_token(&Token::SemiColon) {
            semicolons += 1;
        }
        let otherwise = if self.take_word("ELSE") {
            Some(Box::new(self.statement(false)?))
        } else {
            None
        };
        if otherwise.is_none() {
            (0..semicolons).for_each(|_| self.p.prev_token());
        }
        Ok(Stmt::If {
            condition,
            then,
            otherwise,
        })
    }

    pub(super) fn raiserror(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        self.p.expect_token(&Token::LParen)?;
        let mut list = self.p.parse_comma_separated(Parser::parse_expr)?;
        self.p.expect_token(&Token::RParen)?;
        if self.take_word("WITH") {
            self.option_names()?;
        }
        if list.len() < 3 {
            return self.unexpected();
        }
        let args = list.split_off(3);
        let mut head = list.into_iter();
        match (head.next(), head.next(), head.next()) {
            (Some(message), Some(severity), Some(state)) => Ok(Stmt::RaisError(Box::new(Raise {
                message,
                severity,
                state,
                args,
            }))),
            _ => self.unexpected(),
        }
    }

    pub(super) fn throw(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        if self.at_end() || self.at_statement() {
            return Ok(Stmt::Throw(None));
        }
        let number = self.p.parse_expr()?;
        self.p.expect_token(&Token::Comma)?;
        let message = self.p.parse_expr()?;
        self.p.expect_token(&Token::Comma)?;
        let state = self.p.parse_expr()?;
        Ok(Stmt::Throw(Some(Box::new((number, message, state)))))
    }
}
