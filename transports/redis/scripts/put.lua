-- Store.put. Plan: {names, versions, tokens, settled, queues}; the first `settled` of the tokens
-- are to be settled, the others are causes only. A queue is {name, limit, overflow, envelopes} with
-- limit -1 for none and overflow 1 for reject-publish; an envelope is
-- {index, id, priority, delay, ttl, max_deliveries, cause} with times in microseconds, ttl -1 for
-- none, and cause the number of its token or 0. The content of envelope `index` is ARGV[index + 2].
-- Answer: {"stale", indices} | {"full", names} | {"ok", already, stale tokens}.

local names, versions, tokens, settled, queues = plan[1], plan[2], plan[3], plan[4], plan[5]

if #names > 0 then
  local stale = {}
  for index, version in ipairs(many_values('HMGET', P .. 'versions', names)) do
    if tonumber(version or '0') ~= versions[index] then
      stale[#stale + 1] = index - 1
    end
  end
  if #stale > 0 then
    return cmsgpack.pack({'stale', stale})
  end
end

local records = #tokens > 0 and find(tokens) or {}
check_books(tokens, records, settled)
local leaving, leaving_count = {}, 0
for index = 1, settled do
  if records[index] then
    leaving[member_of(tokens[index][1], tokens[index][2])] = true
    leaving_count = leaving_count + 1
  end
end

-- Read: what is new, whether there is room, and the type of each key that will be written.

local already, full, growth = {}, {}, 0

-- `filled` takes in the priorities that are known to have ready messages.
local function choose(queue, envelopes, filled)
  local ids, chosen, seen, checked, alive, unusual = {}, {}, {}, {}, 0, false
  for position, envelope in ipairs(envelopes) do
    ids[position] = envelope[2]
  end
  local bodies = many_values('HMGET', key_of('m', queue), ids)
  for position, envelope in ipairs(envelopes) do
    local id, cause = envelope[2], envelope[7]
    if cause == 0 or records[cause] then
      local exists = bodies[position] and not leaving[member_of(queue, id)]
      if exists or seen[id] then
        already[#already + 1] = envelope[1]
      else
        seen[id] = true
        chosen[#chosen + 1] = envelope
        if envelope[5] ~= 0 then
          alive = alive + 1
        end
        if envelope[4] > 0 or envelope[5] >= 0 or envelope[6] > 0 then
          unusual = true
        elseif not checked[envelope[3]] then
          checked[envelope[3]] = true
          if call('LLEN', key_of('l' .. envelope[3], queue)) == 0 then
            call('SCARD', key_of('s', queue))
          else
            filled[envelope[3]] = true
          end
        end
      end
    end
  end
  return chosen, alive, unusual
end

for _, queue in ipairs(queues) do
  local name, limit = queue[1], queue[2]
  local unusual, alive
  queue[5] = {}
  queue[4], alive, unusual = choose(name, queue[4], queue[5])
  growth = growth + #queue[4]
  if unusual or limit >= 0 then
    touch(name)
  end
  bells(name)
  if limit >= 0 and queue[3] == 1 and alive > 0 and unclaimed(name) + alive > limit then
    full[#full + 1] = name
  end
end
if #full > 0 then
  return cmsgpack.pack({'full', full})
end

-- Write. What grows comes first, so that a full server refuses it before anything has happened;
-- but copies that replace what is settled must pass, or a full server could not be drained.

local seq = 0
if growth > leaving_count then
  seq = call('INCRBY', P .. 'seq', growth) - growth
  settle(tokens, records, settled)
else
  call('GET', P .. 'seq')
  settle(tokens, records, settled)
  if growth > 0 then
    seq = call('INCRBY', P .. 'seq', growth) - growth
  end
end

local function append(queue, envelopes, filled)
  local content, lists, filling, ready = {}, {}, {}, 0
  for _, envelope in ipairs(envelopes) do
    local id, priority, delay, ttl, most = envelope[2], envelope[3], envelope[4], envelope[5],
      envelope[6]
    local mid = priority .. id
    seq = seq + 1
    content[#content + 1] = id
    content[#content + 1] = ARGV[envelope[1] + 2]
    if ttl == 0 then
      bury(queue, mid, id, seq, {0, 0, most, 'expired'})
    else
      if most > 0 then
        set_meta(queue, id, {0, 0, most, ''})
      end
      if ttl > 0 then
        note_expiry(queue, mid, now + ttl)
      end
      if delay > 0 then
        postpone(queue, mid, id, priority, seq, delay)
      else
        ready = ready + 1
        filling[priority] = true
        if ttl > 0 then
          call('ZADD', key_of('r' .. priority, queue), seq, id)
        else
          local list = lists[priority] or {}
          lists[priority] = list
          list[#list + 1] = string.format('%.0f:', seq) .. id
        end
      end
    end
  end
  many('HSET', key_of('m', queue), content)
  for priority, list in pairs(lists) do
    many('RPUSH', key_of('l' .. priority, queue), list)
  end
  for priority in pairs(filling) do
    if not filled[priority] then
      fill(queue, priority)
    end
  end
  return ready
end

-- Let the oldest of the lowest priority die until there are no more than `limit`.
local function drop_surplus(queue, limit)
  local count, priority = unclaimed(queue), 0
  while count > limit and priority <= 9 do
    local list = key_of('l' .. priority, queue)
    local head = call('LINDEX', list, 0)
    local first, mid = math.huge, nil
    if head then
      first = tonumber(string.match(head, '^(%d+):'))
    end
    for _, kind in ipairs({'r', 'p'}) do
      local other = call('ZRANGE', key_of(kind .. priority, queue), 0, 0, 'WITHSCORES')
      if other[1] and tonumber(other[2]) < first then
        first, mid = tonumber(other[2]), priority .. other[1]
      end
    end
    if mid then
      local expires = call('ZSCORE', key_of('t', queue), mid)
      if expires and tonumber(expires) <= now then
        kill(queue, mid, 'expired')
      else
        kill(queue, mid, 'maxlen')
        count = count - 1
      end
    elseif head then
      local id = string.match(head, '^%d+:(.*)$')
      call('LPOP', list)
      local meta = get_meta(queue, id)
      meta[4] = 'maxlen'
      bury(queue, priority .. id, id, first, meta)
      count = count - 1
    else
      priority = priority + 1
    end
  end
end

for _, queue in ipairs(queues) do
  local ready = append(queue[1], queue[4], queue[5])
  if queue[2] >= 0 and queue[3] == 0 then
    drop_surplus(queue[1], queue[2])
  end
  if ready > 0 then
    ring(queue[1], ready)
  end
end
return cmsgpack.pack({'ok', already, stale_of(records, settled)})
