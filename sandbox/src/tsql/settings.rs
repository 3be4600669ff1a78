//! The statement reader's SET and DECLARE.

use sqlparser::ast::{BinaryOperator, Expr};
use sqlparser::tokenizer::Token;

use super::parse::{Parsed, Reader};
use super::{Declaration, DeclaredType, SetOption, Stmt};

impl Reader<'_> {
    pub(super) fn set(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        if self.peek_variable() {
            return self.assign();
        }
        let name = if self.take_words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            "TRANSACTION ISOLATION LEVEL".to_owned()
        } else if self.take_word("STATISTICS") {
            format!("STATISTICS {}", self.option_name()?)
        } else if self.take_word("IDENTITY_INSERT") {
            format!("IDENTITY_INSERT {}", self.p.parse_object_name(false)?)
        } else {
            self.option_names()?
        };
        let value = if name == "TRANSACTION ISOLATION LEVEL" {
            self.isolation_level()?
        } else {
            self.option_value()?
        };
        Ok(Stmt::Set(SetOption { name, value }))
    }

    fn assign(&mut self) -> Parsed<Stmt> {
        let name = self.variable()?;
        let compound = [
            (Token::Plus, BinaryOperator::Plus),
            (Token::Minus, BinaryOperator::Minus),
            (Token::Mul, BinaryOperator::Multiply),
            (Token::Div, BinaryOperator::Divide),
        ];
        let op = compound
            .into_iter()
            .find_map(|(token, op)| self.p.consume_token(&token).then_some(op));
        self.p.expect_token(&Token::Eq)?;
        let value = self.p.parse_expr()?;
        let value = match op {
            None => value,
            Some(op) => {
                let left = Box::new(Expr::Identifier(name.as_str().into()));
                Expr::BinaryOp {
                    left,
                    op,
                    right: Box::new(Expr::Nested(Box::new(value))),
                }
            }
        };
        Ok(Stmt::Assign { name, value })
    }

    fn option_name(&mut self) -> Parsed<String> {
        match self.peek_word(0) {
            Some(word) => {
                self.p.advance_token();
                Ok(word)
            }
            None => self.unexpected(),
        }
    }

    pub(super) fn option_names(&mut self) -> Parsed<String> {
        let mut names = self.option_name()?;
        while self.p.consume_token(&Token::Comma) {
            names.push(',');
            names.push_str(&self.option_name()?);
        }
        Ok(names)
    }

    fn isolation_level(&mut self) -> Parsed<String> {
        for words in [
            &["READ", "UNCOMMITTED"][..],
            &["READ", "COMMITTED"],
            &["REPEATABLE", "READ"],
            &["SNAPSHOT"],
            &["SERIALIZABLE"],
        ] {
            if self.take_words(words) {
                return Ok(words.join(" "));
            }
        }
        self.unexpected()
    }

    /// One word, string, variable or signed number.
    fn option_value(&mut self) -> Parsed<String> {
        let minus = self.p.consume_token(&Token::Minus);
        let token = self.p.next_token().token;
        let value = match token {
            Token::Word(w) => w.value.to_ascii_uppercase(),
            Token::Number(n, _) => n,
            Token::SingleQuotedString(s) | Token::NationalStringLiteral(s) => s,
            Token::HexStringLiteral(s) => format!("0X{s}"),
            _ => {
                self.p.prev_token();
                return self.unexpected();
            }
        };
        Ok(if minus { format!("-{value}") } else { value })
    }

    pub(super) fn declarations(&mut self) -> Parsed<Vec<Declaration>> {
        let mut list = Vec::new();
        loop {
            let name = self.variable()?;
            self.take_word("AS");
            let kind = if self.take_word("TABLE") {
                DeclaredType::Table(self.p.parse_columns()?.0)
            } else if self.take_word("CURSOR") {
                DeclaredType::Cursor
            } else {
                DeclaredType::Scalar(self.p.parse_data_type()?)
            };
            let value = if self.p.consume_token(&Token::Eq) {
                Some(self.p.parse_expr()?)
            } else {
                None
            };
            let output = self.take_word("OUTPUT") || self.take_word("OUT");
            self.take_word("READONLY");
            list.push(Declaration {
                name,
                kind,
                value,
                output,
            });
            if !self.p.consume_token(&Token::Comma) {
                return Ok(list);
            }
        }
    }
}
