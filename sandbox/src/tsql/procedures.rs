//! The statement reader's procedures: EXEC, CREATE PROCEDURE, and the announcement of a bulk load.

use sqlparser::parser::IsOptional;
use sqlparser::tokenizer::Token;

use super::parse::{Parsed, Reader};
use super::{Argument, Exec, ExecTarget, Procedure, Stmt};

/// Procedures and bulk load.
impl Reader<'_> {
    pub(super) fn exec(&mut self) -> Parsed<Stmt> {
        if self.p.consume_token(&Token::LParen) {
            let text = self.p.parse_expr()?;
            self.p.expect_token(&Token::RParen)?;
            return Ok(Stmt::Exec(Exec {
                status: None,
                what: ExecTarget::Text(Box::new(text)),
                args: Vec::new(),
            }));
        }
        let status = if self.peek_variable() && self.p.peek_nth_token(1).token == Token::Eq {
            let name = self.variable()?;
            self.p.advance_token();
            Some(name)
        } else {
            None
        };
        let name = self.p.parse_object_name(false)?;
        let parts = name
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .map(|ident| ident.value.clone())
            .collect();
        let mut args = Vec::new();
        if !self.at_end() && !self.at_statement() {
            loop {
                args.push(self.argument()?);
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
        }
        self.take_words(&["WITH", "RECOMPILE"]);
        Ok(Stmt::Exec(Exec {
            status,
            what: ExecTarget::Procedure(parts),
            args,
        }))
    }

    fn argument(&mut self) -> Parsed<Argument> {
        let name = if self.peek_variable() && self.p.peek_nth_token(1).token == Token::Eq {
            let name = self.variable()?;
            self.p.advance_token();
            Some(name)
        } else {
            None
        };
        let value = if self.take_word("DEFAULT") {
            None
        } else {
            Some(self.p.parse_expr()?)
        };
        let output = self.take_word("OUTPUT") || self.take_word("OUT");
        Ok(Argument { name, value, output })
    }

    pub(super) fn insert_bulk(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        self.p.advance_token();
        let table = self.p.parse_object_name(false)?.to_string();
        let mut columns = Vec::new();
        if self.p.consume_token(&Token::LParen) {
            loop {
                columns.push(self.p.parse_identifier()?.value);
                self.p.parse_data_type()?;
                if self.take_word("COLLATE") {
                    self.p.advance_token();
                }
                self.take_word("NOT");
                self.take_word("NULL");
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.p.expect_token(&Token::RParen)?;
        }
        if self.take_word("WITH") {
            self.skip_parenthesised()?;
        }
        Ok(Stmt::InsertBulk { table, columns })
    }

    /// Looks ahead: `INSERT [INTO] name [(…)] EXEC`.
    pub(super) fn is_insert_exec(&self) -> bool {
        let token = |at: usize| self.p.peek_nth_token(at).token;
        let mut at = 1 + usize::from(self.peek_word(1).is_some_and(|w| w == "INTO"));
        while matches!(token(at), Token::Word(_)) && token(at + 1) == Token::Period {
            at += 2;
        }
        at += 1;
        if token(at) == Token::LParen {
            while !matches!(token(at), Token::RParen | Token::EOF) {
                at += 1;
            }
            at += 1;
        }
        self.peek_word(at).is_some_and(|w| w == "EXEC" || w == "EXECUTE")
    }

    pub(super) fn insert_exec(&mut self) -> Parsed<Stmt> {
        self.p.advance_token();
        self.take_word("INTO");
        let table = self.last_part()?;
        let columns = if self.p.peek_token_ref().token == Token::LParen {
            let list = self
                .p
                .parse_parenthesized_column_list(IsOptional::Mandatory, false)?;
            list.into_iter().map(|ident| ident.value).collect()
        } else {
            Vec::new()
        };
        self.p.advance_token();
        match self.exec()? {
            Stmt::Exec(exec) => Ok(Stmt::InsertExec { table, columns, exec }),
            _ => self.unexpected(),
        }
    }

    /// CREATE, ALTER and DROP: procedures are ours, all else is `sqlparser`'s.
    pub(super) fn definition(&mut self) -> Parsed<Stmt> {
        let is_proc = |word: Option<String>| word.is_some_and(|w| w == "PROC" || w == "PROCEDURE");
        if self.peek_word(0).is_some_and(|w| w == "DROP") && is_proc(self.peek_word(1)) {
            self.p.advance_token();
            self.p.advance_token();
            let if_exists = self.take_words(&["IF", "EXISTS"]);
            let name = self.last_part()?;
            return Ok(Stmt::DropProcedure { name, if_exists });
        }
        if self.take_words(&["DROP", "TYPE"]) {
            let if_exists = self.take_words(&["IF", "EXISTS"]);
            let name = self.last_part()?;
            return Ok(Stmt::DropType { name, if_exists });
        }
        if self.take_words(&["CREATE", "TYPE"]) {
            let name = self.last_part()?;
            self.expect_word("AS")?;
            self.expect_word("TABLE")?;
            let columns = self.p.parse_columns()?.0;
            return Ok(Stmt::CreateTableType { name, columns });
        }
        let or_alter = self.peek_words(&["CREATE", "OR", "ALTER"]);
        if !is_proc(self.peek_word(if or_alter { 3 } else { 1 })) {
            return self.sql_or_procedure(false);
        }
        (0..if or_alter { 4 } else { 2 }).for_each(|_| self.p.advance_token());
        let name = self.last_part()?;
        let parenthesised = self.p.consume_token(&Token::LParen);
        let parameters = if self.peek_variable() {
            self.declarations()?
        } else {
            Vec::new()
        };
        if parenthesised {
            self.p.expect_token(&Token::RParen)?;
        }
        self.expect_word("AS")?;
        let mut body = Vec::new();
        self.skip_semicolons();
        while self.p.peek_token_ref().token != Token::EOF {
            body.push(self.statement(false)?);
            self.skip_semicolons();
        }
        Ok(Stmt::CreateProcedure(Box::new(Procedure {
            name,
            parameters,
            body,
        })))
    }

    fn last_part(&mut self) -> Parsed<String> {
        let name = self.p.parse_object_name(false)?;
        let last = name.0.last().and_then(|part| part.as_ident());
        last.map_or_else(|| self.unexpected(), |ident| Ok(ident.value.to_lowercase()))
    }
}
