//! sqlparser's SQL Server dialect with the statement-starting words that it still takes for aliases.

use std::any::TypeId;

use sqlparser::ast::Statement;
use sqlparser::dialect::{Dialect, MsSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// T-SQL as drivers write it: statements divided by nothing but a space.
#[derive(Debug, Default)]
pub(crate) struct TSql(MsSqlDialect);

/// Words that start a statement or close a block, and so never name a column or table without `AS`.
const NEVER_ALIAS: &[Keyword] = &[
    Keyword::BEGIN,
    Keyword::COMMIT,
    Keyword::ROLLBACK,
    Keyword::SET,
    Keyword::USE,
    Keyword::WAITFOR,
    Keyword::OPTION,
    Keyword::FOR,
    Keyword::CONTINUE,
    Keyword::GRANT,
    Keyword::DENY,
    Keyword::REVOKE,
    Keyword::KILL,
    Keyword::OPEN,
    Keyword::CLOSE,
    Keyword::DEALLOCATE,
];

impl Dialect for TSql {
    fn dialect(&self) -> TypeId {
        TypeId::of::<MsSqlDialect>()
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }
    fn convert_type_before_value(&self) -> bool {
        true
    }
    fn supports_dollar_as_money_prefix(&self) -> bool {
        true
    }
    fn supports_eq_alias_assignment(&self) -> bool {
        true
    }
    fn supports_try_convert(&self) -> bool {
        true
    }
    fn supports_boolean_literals(&self) -> bool {
        false
    }
    fn supports_start_transaction_modifier(&self) -> bool {
        true
    }
    fn supports_end_transaction_modifier(&self) -> bool {
        true
    }
    fn supports_set_stmt_without_operator(&self) -> bool {
        true
    }
    fn supports_nested_comments(&self) -> bool {
        true
    }
    fn supports_object_name_double_dot_notation(&self) -> bool {
        true
    }
    fn is_select_item_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        (explicit || !NEVER_ALIAS.contains(kw)) && self.0.is_select_item_alias(explicit, kw, parser)
    }
    fn is_table_factor_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        (explicit || !NEVER_ALIAS.contains(kw)) && self.0.is_table_factor_alias(explicit, kw, parser)
    }
    fn parse_statement(&self, parser: &mut Parser) -> Option<Result<Statement, ParserError>> {
        self.0.parse_statement(parser)
    }
}
