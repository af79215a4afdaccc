-- Store.put of what most puts consist of: messages that are ready at once, for ever or for some time,
-- for queues without a limit, and acks that go along; a thousand words at most. It is the only script
-- of which each microsecond counts, so it stands alone: a plan to unpack, a table, or the functions
-- that others share would take as long as what it is for.
--
-- ARGV: how many versions, the names in `versions`, and these versions; how many groups of tokens, and
-- each with queue, tag, how many, and ids; and up to the end runs of messages, each with queue,
-- priority, ttl in microseconds (-1 is for ever), how many, ids, and contents.
-- Answer: 0 if all went well, else {stale, already, stale tokens}: which versions are wrong (then
-- nothing was done), which messages were there already, and which tokens were not held, all counted
-- from 0.

local P, call = KEYS[1], redis.call
local stale, already, lost = {}, {}, {}

local names = tonumber(ARGV[1])
local at = 2 + 2 * names  -- where in ARGV
if names > 0 then
  for index, version in ipairs(call('HMGET', P .. 'versions', unpack(ARGV, 2, 1 + names))) do
    if ARGV[1 + names + index] ~= (version or '0') then
      stale[#stale + 1] = index - 1
    end
  end
  if #stale > 0 then
    return {stale, already, lost}
  end
end

-- Read: what is held, what is new, and the type of each key that will be written. What is known of a
-- queue: id -> whether it is there, once the acks have happened; 1 -> its bells; 2 -> what is new.

local known = {}

local groups, leaving, place = {}, 0, 0
for group = 1, tonumber(ARGV[at]) do
  local queue, tag, count = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local claims = P .. 'c:' .. string.match(tag, '^[^.]*') .. ':' .. queue
  local start, held = tag .. ' ', {}
  known[queue] = known[queue] or {}
  for index, record in ipairs(call('HMGET', claims, unpack(ARGV, at + 4, at + 3 + count))) do
    if record and string.sub(record, 1, #start) == start then
      local id = ARGV[at + 3 + index]
      held[#held + 1] = id
      known[queue][id] = false
    else
      lost[#lost + 1] = place + index - 1
    end
  end
  call('HLEN', P .. 'm:' .. queue)
  groups[group] = {claims, P .. 'm:' .. queue, held}
  leaving, place, at = leaving + #held, place + count, at + 3 + count
end
at = at + 1

local runs, growth, total = {}, 0, 0
while ARGV[at] do
  local queue, priority, ttl, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local first = at + 4
  at = first + 2 * count
  local there, bodies = known[queue], P .. 'm:' .. queue
  if not there then
    there = {}
    known[queue] = there
  end
  local ids, contents = {}, {}
  for index, body in ipairs(call('HMGET', bodies, unpack(ARGV, first, first + count - 1))) do
    local id = ARGV[first + index - 1]
    if there[id] or body and there[id] == nil then
      already[#already + 1] = total + index - 1
    else
      there[id] = true
      ids[#ids + 1] = id
      contents[#contents + 1] = id
      contents[#contents + 1] = ARGV[first + count + index - 1]
    end
  end
  local ready, empty
  if ttl == '-1' then
    ready = P .. 'l' .. priority .. ':' .. queue
    empty = call('LLEN', ready) == 0
  else
    ready = P .. 'r' .. priority .. ':' .. queue
    empty = call('ZCARD', ready) == 0
    call('ZCARD', P .. 't:' .. queue)
    call('ZCARD', P .. 'ttl')
  end
  if empty then
    call('SCARD', P .. 's:' .. queue)
  end
  there[1], there[2] = there[1] or call('LLEN', P .. 'b:' .. queue), (there[2] or 0) + #ids
  growth, total = growth + #ids, total + count
  runs[#runs + 1] = {queue, priority, ttl, bodies, ready, empty, ids, contents}
end

-- Write. What grows comes first, so that a full server refuses it before anything has happened;
-- but what takes at least as much away must pass, or a full server could not be drained.

local seq, now = nil, nil
if growth > leaving then
  seq = call('INCRBY', P .. 'seq', growth) - growth
else
  call('GET', P .. 'seq')
end
for _, group in ipairs(groups) do
  local claims, bodies, held = unpack(group)
  if #held > 0 then
    call('HDEL', claims, unpack(held))
    call('HDEL', bodies, unpack(held))
  end
end
if growth == 0 then
  runs = {}
elseif not seq then
  seq = call('INCRBY', P .. 'seq', growth) - growth
end
for _, run in ipairs(runs) do
  local queue, priority, ttl, bodies, ready, empty, ids, contents = unpack(run)
  if #ids > 0 then
    call('HSET', bodies, unpack(contents))
    if ttl == '-1' then
      for index, id in ipairs(ids) do
        ids[index] = string.format('%.0f:%s', seq + index, id)
      end
      call('RPUSH', ready, unpack(ids))
    else
      now = now or clock()
      local expires, places, ends = string.format('%.0f', now + ttl), {}, {}
      for index, id in ipairs(ids) do
        places[2 * index - 1], places[2 * index] = seq + index, id
        ends[2 * index - 1], ends[2 * index] = expires, priority .. id
      end
      call('ZADD', P .. 't:' .. queue, unpack(ends))
      call('ZADD', P .. 'ttl', 'LT', expires, queue)
      call('ZADD', ready, unpack(places))
    end
    seq = seq + #ids
    if empty then
      call('SADD', P .. 's:' .. queue, priority)
    end
  end
end
for queue, there in pairs(known) do
  local bells, fresh = there[1], there[2]
  if fresh and fresh > 0 and bells < 10 then
    local more = {'', '', '', '', '', '', '', '', '', ''}
    call('RPUSH', P .. 'b:' .. queue, unpack(more, 1, math.min(fresh, 10 - bells)))
  end
end
if #already > 0 or #lost > 0 then
  return {stale, already, lost}
end
return 0
