//! The scripts that run inside Redis, each all or nothing. A script is sent once per server and then called by its digest.

use std::sync::LazyLock;

use redis::Script;

/// Where a stream ends, also when all of it was trimmed; false when it is not there. Without arguments: `KEYS[1]` is the stream.
const LAST_OF: &str = "
local function last_of(key)
  if redis.call('EXISTS', key) == 0 then return false end
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return redis.error_reply('ERR this server does not tell last-generated-id')
end
";

/// `a < b` of two ids. By length and letters: the numbers have up to 63 bits, Lua's have 53.
const BEFORE: &str = "
local function before(a, b)
  local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
  if a1 ~= b1 then
    if #a1 ~= #b1 then return #a1 < #b1 end
    return a1 < b1
  end
  if #a2 ~= #b2 then return #a2 < #b2 end
  return a2 < b2
end
";

/// KEYS: stream, set of streams, change counter. ARGV: the stream's name, the id that it must end at (empty: it must not be there), then
/// id and body of each entry. Answers `done`, `last <id>` (nothing after it: not there) or `conflict <id>`.
///
/// Each entry names the one before it, so that a reader sees what somebody else has removed. The set is written each time: one that was lost is whole again after each stream's next append.
const APPEND: &str = "
local last = last_of(KEYS[1])
if type(last) == 'table' then return last end
if (last or '') ~= ARGV[2] then
  for i = 3, #ARGV, 2 do
    local there = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
    if there[1] and there[1][2][2] ~= ARGV[i + 1] then return 'conflict ' .. ARGV[i] end
  end
  return 'last ' .. (last or '')
end
local prior = last or ''
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], ARGV[i], 'e', ARGV[i + 1], 'a', prior)
  prior = ARGV[i]
end
if #ARGV > 2 then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('INCR', KEYS[3])
end
return 'done'
";

/// KEYS: stream, cursor, change counter. ARGV: the id. Answers `done`, or `last <id>` when the stream ends before it.
///
/// Trims first: a server that is full refuses a script whose first write needs memory, and could then never be emptied. The entry at the
/// cursor stays, so that a stream that is there is never empty.
const CONFIRM: &str = "
local last = last_of(KEYS[1])
if type(last) == 'table' then return last end
if not last or before(last, ARGV[1]) then return 'last ' .. (last or '') end
local cursor = redis.call('GET', KEYS[2])
if cursor and not before(cursor, ARGV[1]) then return 'done' end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
redis.call('SET', KEYS[2], ARGV[1])
redis.call('INCR', KEYS[3])
return 'done'
";

/// KEYS: stream, cursor, change counter. ARGV: the cursor as the reader knows it (empty: none). Answers `emptied` when entries right behind
/// the cursor were removed by somebody else: the stream is dropped then, and its writer, who still has all that is not confirmed, fills
/// it again. Else `whole`.
const EMPTY_IF_HOLED: &str = "
local cursor = redis.call('GET', KEYS[2]) or ''
local last = last_of(KEYS[1])
if type(last) == 'table' then return last end
if cursor ~= ARGV[1] or not last then return 'whole' end
if cursor ~= '' and not before(cursor, last) then return 'whole' end
local first = redis.call('XRANGE', KEYS[1], cursor == '' and '-' or '(' .. cursor, '+', 'COUNT', 1)[1]
if first then
  local prior = first[2][4] or ''
  if cursor == '' or prior == '' or not before(cursor, prior) then return 'whole' end
end
redis.call('UNLINK', KEYS[1])
redis.call('INCR', KEYS[3])
return 'emptied'
";

/// KEYS: stream. Answers its last id, or nothing.
const LAST: &str = "return last_of(KEYS[1])";

pub(super) static APPEND_SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[LAST_OF, APPEND].concat()));
pub(super) static CONFIRM_SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[LAST_OF, BEFORE, CONFIRM].concat()));
pub(super) static EMPTY_IF_HOLED_SCRIPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[LAST_OF, BEFORE, EMPTY_IF_HOLED].concat()));
pub(super) static LAST_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&[LAST_OF, LAST].concat()));
