-- Claiming, and what a step hands out.

local function held_by(life)
  return P .. 'held:' .. life
end

-- Seq, priority, attempts, crashes, max_deliveries, expires, reason (empty for none), request, tag.
-- A damaged record has lost what was unusual about its message, which is the first in its queue now.
local function read_record(record)
  local tag, seq, priority, attempts, crashes, most, expires, reason, request = string.match(
    record, '^(%S+) (%d+) (%d) (%d+) (%d+) (%d+) (%d+) (%S+) (.*)$')
  if not tag then
    return '0', '0', '1', '0', '0', '0', '', ''
  end
  return seq, priority, attempts, crashes, most, expires, reason == '-' and '' or reason, request,
    tag
end

-- Attempts, crashes, max_deliveries and reason of a meta; of a damaged one as if there was none.
local function read_meta(meta)
  local attempts, crashes, most, reason = string.match(meta, '^(%d+) (%d+) (%d+) (.*)$')
  return attempts or '0', crashes or '0', most or '0', reason or ''
end

-- Read what `open_claims` is going to write; whether this is the session's first claim there.
local function check_claims(queue, life)
  check('HLEN', claims_of(life, queue))
  if call('SISMEMBER', held_by(life), queue) == 1 then
    return false
  end
  check('SCARD', key_of('h', queue))
  return true
end

-- Begin claims: write records, a list of id and record by turns.
local function open_claims(queue, life, records, is_first)
  if #records > 0 then
    many('HSET', claims_of(life, queue), records)
    if is_first then
      call('SADD', key_of('h', queue), life)
      call('SADD', held_by(life), queue)
    end
  end
end

-- What a session's entry holds; nil if there is none, or a damaged one, which is no session.
local function read_session(packed)
  local fine, found = pcall(cmsgpack.unpack, packed)
  return fine and type(found) == 'table' and tonumber(found[3]) and found or nil
end

-- A session's life; nil if there is no such session. Its `beats` are returned too.
local function life_of(session)
  local found = read_session(call('HGET', P .. 'sessions', session))
  if not found then
    return nil
  end
  return string.format('%.0f', found[3]), found[2]
end

-- What a step hands out: a head, and then id and content by turns; in the head are runs of messages
-- that have everything else in common: {queue, tag, priority, attempts, how many, reason}.

local runs, answer, run = {}, {''}, {}

local function report(queue, tag, priority, attempts, reason, id, content)
  if run[1] ~= queue or run[4] ~= attempts or run[3] ~= priority or run[2] ~= tag
    or run[6] ~= reason then
    run = {queue, tag, priority, attempts, 0, reason}
    runs[#runs + 1] = run
  end
  run[5] = run[5] + 1
  answer[#answer + 1] = id
  answer[#answer + 1] = content
end
