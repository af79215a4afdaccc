-- Who holds what. A claim's tag is the life of its session and the fence of its call, with a dot
-- between. Its record is text: tag, seq, priority, attempts, crashes, max_deliveries, expires, reason
-- (- for none) and request, with spaces between; so whether a token is good is told by how the record
-- begins.
--
-- Tokens come in groups {queue, tag, ids}; `find` adds the key of the records, the records, and the
-- ids of those that are held.

local function claims_of(life, queue)
  return P .. 'c:' .. life .. ':' .. queue
end

-- Find the records of tokens; false for those that are not held.
local function find(groups)
  for _, group in ipairs(groups) do
    local start = group[2] .. ' '
    local length = #start
    local key = claims_of(string.match(group[2], '^[^.]*'), group[1])
    local ids, records, held, sub = group[3], many_values('HMGET', key, group[3]), {}, string.sub
    checked[key] = true
    for index, record in ipairs(records) do
      if record and sub(record, 1, length) == start then
        held[#held + 1] = ids[index]
      else
        records[index] = false
      end
    end
    group[4], group[5], group[6] = key, records, held
  end
end

-- Fail now, before the first write, if `settle` would.
local function check_books(groups, last)
  for index = 1, last do
    check('HLEN', key_of('m', groups[index][1]))
  end
end

-- Forget the messages of these tokens for ever.
local function settle(groups, last)
  for index = 1, last do
    local group = groups[index]
    many('HDEL', group[4], group[6])
    many('HDEL', key_of('m', group[1]), group[6])
  end
end

-- The places of the tokens that are not held, counted from 0 through all groups.
local function stale_of(groups, last)
  local stale, place = {}, 0
  for index = 1, last do
    for _, record in ipairs(groups[index][5]) do
      if not record then
        stale[#stale + 1] = place
      end
      place = place + 1
    end
  end
  return stale
end
