//! The forms that drivers send, read as statements.

use super::*;

fn sets(text: &str) -> Vec<(String, String)> {
    let list = parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    list.into_iter()
        .map(|s| match s {
            Stmt::Set(option) => (option.name, option.value),
            other => panic!("{text}: {other:?}"),
        })
        .collect()
}

#[test]
fn set_batches_of_drivers_divided_by_semicolons_newlines_or_spaces() {
    let freetds =
        "SET ARITHABORT ON;SET CONCAT_NULL_YIELDS_NULL ON;SET ANSI_NULLS ON;SET TEXTSIZE 2147483647;";
    assert_eq!(sets(freetds).len(), 4);
    let tedious = "set ansi_nulls on\nset datefirst 7\nset dateformat mdy\nset implicit_transactions off\n\
                   set language us_english\nset textsize 2147483647\nset transaction isolation level read committed\nset xact_abort off";
    let read = sets(tedious);
    assert_eq!(read.len(), 8);
    assert!(read.contains(&("TRANSACTION ISOLATION LEVEL".into(), "READ COMMITTED".into())));
    assert!(read.contains(&("LANGUAGE".into(), "US_ENGLISH".into())));
    assert_eq!(
        sets("SET LOCK_TIMEOUT -1 SET ROWCOUNT 0 SET ANSI_WARNINGS, ANSI_PADDING ON").len(),
        3
    );
    assert_eq!(
        sets("SET NO_BROWSETABLE ON SET FMTONLY ON SET IDENTITY_INSERT [dbo].[t] ON SET STATISTICS IO ON")
            .len(),
        4
    );
}

#[test]
fn jdbc_transaction_forms() {
    let list = parse("set implicit_transactions off IF @@TRANCOUNT > 0 COMMIT TRAN ").unwrap();
    assert!(
        matches!(&list[..], [Stmt::Set(_), Stmt::If { then, otherwise: None, .. }] if **then == Stmt::Commit)
    );
    let list = parse("IF @@TRANCOUNT > 0 ROLLBACK TRAN").unwrap();
    assert!(matches!(&list[..], [Stmt::If { then, .. }] if **then == Stmt::Rollback(None)));
    let list = parse(
        "IF @@TRANCOUNT = 0 BEGIN SET IMPLICIT_TRANSACTIONS ON BEGIN TRAN SAVE TRAN s1 END ELSE SAVE TRAN s1",
    )
    .unwrap();
    assert!(
        matches!(&list[..], [Stmt::If { otherwise: Some(save), .. }] if **save == Stmt::Save("s1".into()))
    );
    let r2dbc = "SET IMPLICIT_TRANSACTIONS ON; IF @@TRANCOUNT = 0 BEGIN BEGIN TRAN IF @@TRANCOUNT = 2 COMMIT TRAN END";
    assert_eq!(parse(r2dbc).unwrap().len(), 2);
    assert_eq!(
        parse("IF @@TRANCOUNT > 0 COMMIT TRAN WITH (DELAYED_DURABILITY = ON)")
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        parse("EXEC sp_unprepare 1;EXEC sp_unprepare 2;").unwrap().len(),
        2
    );
    assert_eq!(parse("EXEC sp_unprepare 1 EXEC sp_unprepare 2").unwrap().len(), 2);
}

#[test]
fn statements_without_any_divider() {
    assert_eq!(parse("SELECT 1 SELECT 2").unwrap().len(), 2);
    assert_eq!(
        parse("SELECT * FROM t SET NOCOUNT ON SELECT a b FROM t BEGIN TRAN COMMIT")
            .unwrap()
            .len(),
        5
    );
    assert_eq!(
        parse("insert into t values (1) update t set a = 2 where b = 3 delete from t select 1 x commit")
            .unwrap()
            .len(),
        5
    );
    assert_eq!(
        parse("COMMIT TRAN\nBEGIN TRAN").unwrap(),
        [Stmt::Commit, Stmt::Begin]
    );
    assert_eq!(parse("use [demo]").unwrap(), [Stmt::Use("demo".into())]);
    assert_eq!(
        parse("SELECT TOP 10 * FROM t WITH (NOLOCK) ORDER BY id OPTION (RECOMPILE)")
            .unwrap()
            .len(),
        1
    );
    assert_eq!(parse("sp_who 1").unwrap().len(), 1);
    assert_eq!(
        parse("declare @a int = 1, @b nvarchar(max) set @a += 2 print @b")
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn syntax_errors_say_where() {
    let error = parse("SELEC * FROM t").unwrap_err();
    assert_eq!(error.line, 1);
    assert!(parse("SELECT * FRM t WHERE").is_err());
    assert_eq!(parse("SELECT 1\nFROM").unwrap_err().near, "");
    let deep = "BEGIN ".repeat(100);
    assert!(parse(&deep).is_err());
}

#[test]
fn parameter_declarations() {
    let list = parse_declarations("@P1 tinyint,@P2 nvarchar(4000) OUTPUT, @t decimal(10, 2)").unwrap();
    assert_eq!(list.len(), 3);
    assert!(list[1].output);
    assert!(parse_declarations("@P1").is_err());
}
