-- Who holds what: records of claims by queue, and what each session holds.

local function member_of(queue, id)
  return #queue .. ':' .. queue .. id
end

local function held_by(life)
  return P .. 'held:' .. string.format('%.0f', life)
end

local function read_member(member)
  local length, start = string.match(member, '^(%d+):()')
  local stop = start + tonumber(length)
  return string.sub(member, start, stop - 1), string.sub(member, stop)
end

-- Find the records of tokens {queue, id, life, fence}; false for those that are not held.
local function find(tokens)
  local records, by_queue = {}, {}
  for index, token in ipairs(tokens) do
    local group = by_queue[token[1]]
    if not group then
      group = {ids = {}, indices = {}}
      by_queue[token[1]] = group
    end
    group.ids[#group.ids + 1] = token[2]
    group.indices[#group.indices + 1] = index
  end
  for queue, group in pairs(by_queue) do
    local packed = many_values('HMGET', key_of('c', queue), group.ids)
    for position, index in ipairs(group.indices) do
      records[index] = false
      if packed[position] then
        local record = cmsgpack.unpack(packed[position])
        local token = tokens[index]
        if record[1] == token[3] and record[2] == token[4] then
          records[index] = record
        end
      end
    end
  end
  return records
end

-- Take the claims of these tokens, as far as they have a record, out of the books. The caller has
-- read every key that this writes, or calls `check_books` first.
local function close_claims(tokens, records, last)
  local ids, members = {}, {}
  for index = 1, last do
    local record = records[index]
    if record then
      local queue, id = tokens[index][1], tokens[index][2]
      local list, held = ids[queue] or {}, members[record[1]] or {}
      ids[queue], members[record[1]] = list, held
      list[#list + 1] = id
      held[#held + 1] = member_of(queue, id)
    end
  end
  for queue, list in pairs(ids) do
    many('HDEL', key_of('c', queue), list)
  end
  for life, list in pairs(members) do
    many('SREM', held_by(life), list)
  end
  return ids
end

local function check_books(tokens, records, last)
  local queues, lives = {}, {}
  for index = 1, last do
    local record = records[index]
    if record then
      local queue, life = tokens[index][1], record[1]
      if not queues[queue] then
        queues[queue] = true
        call('HLEN', key_of('m', queue))
      end
      if not lives[life] then
        lives[life] = true
        call('SCARD', held_by(life))
      end
    end
  end
end

-- Forget the messages of these tokens for ever.
local function settle(tokens, records, last)
  for queue, ids in pairs(close_claims(tokens, records, last)) do
    many('HDEL', key_of('m', queue), ids)
  end
end

-- The indices, from 0, of the tokens that are not held.
local function stale_of(records, last)
  local stale = {}
  for index = 1, last do
    if not records[index] then
      stale[#stale + 1] = index - 1
    end
  end
  return stale
end

-- Begin claims: write records for `taken`, a list of {id, record}.
local function open_claims(queue, life, taken)
  local pairs_, members = {}, {}
  for _, one in ipairs(taken) do
    pairs_[#pairs_ + 1] = one[1]
    pairs_[#pairs_ + 1] = cmsgpack.pack(one[2])
    members[#members + 1] = member_of(queue, one[1])
  end
  many('HSET', key_of('c', queue), pairs_)
  many('SADD', held_by(life), members)
end

-- A session's number, its life; nil if there is no such session. `beats` is returned too.
local function life_of(session)
  local packed = call('HGET', P .. 'sessions', session)
  if not packed then
    return nil
  end
  local found = cmsgpack.unpack(packed)
  return found[3], found[2]
end
