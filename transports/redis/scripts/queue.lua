-- The keys of one queue, and how a message moves between them. `keys.py` describes each key.
--
-- A mid is a message's priority, one digit, followed by its id. A record says what a claim is:
-- {life, fence, seq, priority, attempts, crashes, max_deliveries, expires, reason, request}.
-- A meta says what is unusual about an unclaimed message:
-- {attempts, crashes, max_deliveries, reason}.

local SWEEP = 1000
local PLAIN = {0, 0, 0, ''}
local BELLS = {'', '', '', '', '', '', '', '', '', ''}

local function key_of(kind, queue)
  return P .. kind .. ':' .. queue
end

-- Fail now, before the first write, if a key of this queue has a foreign type.
local function touch(queue)
  for _, kind in ipairs({'m', 'a', 'c'}) do
    call('HLEN', key_of(kind, queue))
  end
  for _, kind in ipairs({'d', 't', 'x'}) do
    call('ZCARD', key_of(kind, queue))
  end
  call('LLEN', key_of('b', queue))
  for priority = 0, 9 do
    call('LLEN', key_of('l' .. priority, queue))
    call('ZCARD', key_of('r' .. priority, queue))
    call('ZCARD', key_of('p' .. priority, queue))
  end
  call('SCARD', key_of('s', queue))
  call('SCARD', P .. 'dead')
  call('ZCARD', P .. 'ttl')
end

-- Say that this priority may have ready messages; claims look nowhere else.
local function fill(queue, priority)
  call('SADD', key_of('s', queue), priority)
end

-- Bells end waits: a claim that found nothing blocks until it can take one of its queues' bells, and
-- then looks again. A queue has bells as long as it has ready messages: who adds some rings, and a
-- claim leaves a bell if it leaves messages.

local hung = {}

-- How many bells there are.
local function bells(queue)
  local count = hung[queue] or call('LLEN', key_of('b', queue))
  hung[queue] = count
  return count
end

-- Hang up bells for `count` messages more.
local function ring(queue, count)
  local before = bells(queue)
  local after = math.min(before + count, #BELLS)
  if after > before then
    hung[queue] = call('RPUSH', key_of('b', queue), unpack(BELLS, 1, after - before))
  end
end

-- Take all bells away.
local function silence(queue)
  if bells(queue) > 0 then
    call('DEL', key_of('b', queue))
    hung[queue] = 0
  end
end

local function note_expiry(queue, mid, expires)
  call('ZADD', key_of('t', queue), expires, mid)
  call('ZADD', P .. 'ttl', 'LT', expires, queue)
end

local function set_meta(queue, id, meta)
  call('HSET', key_of('a', queue), id, cmsgpack.pack(meta))
end

local function get_meta(queue, id)
  local packed = call('HGET', key_of('a', queue), id)
  return packed and cmsgpack.unpack(packed) or {0, 0, 0, ''}
end

-- Put a message that is nowhere with the dead ones.
local function bury(queue, mid, id, seq, meta)
  set_meta(queue, id, meta)
  call('ZADD', key_of('x', queue), seq, mid)
  call('SADD', P .. 'dead', queue)
end

-- Let a message die that is delayed or has come back.
local function kill(queue, mid, reason)
  local priority, id = string.sub(mid, 1, 1), string.sub(mid, 2)
  call('ZREM', key_of('t', queue), mid)
  local returned = key_of('r' .. priority, queue)
  local seq = call('ZSCORE', returned, id)
  if seq then
    call('ZREM', returned, id)
  else
    local places = key_of('p' .. priority, queue)
    seq = call('ZSCORE', places, id)
    if not seq then
      return
    end
    call('ZREM', places, id)
    call('ZREM', key_of('d', queue), mid)
  end
  local meta = get_meta(queue, id)
  meta[4] = reason
  bury(queue, mid, id, seq, meta)
end

-- Let messages die whose ttl is over; say whether there may be more of them.
local function sweep(queue)
  local over = call('ZRANGEBYSCORE', key_of('t', queue), '-inf', now, 'LIMIT', 0, SWEEP)
  if #over == 0 then
    return false
  end
  touch(queue)
  for _, mid in ipairs(over) do
    kill(queue, mid, 'expired')
  end
  return #over == SWEEP
end

-- Make delayed messages ready that are due.
local function promote(queue)
  local due = call('ZRANGEBYSCORE', key_of('d', queue), '-inf', now, 'LIMIT', 0, SWEEP)
  if #due == 0 then
    return
  end
  touch(queue)
  for _, mid in ipairs(due) do
    local priority, id = string.sub(mid, 1, 1), string.sub(mid, 2)
    local places = key_of('p' .. priority, queue)
    local seq = call('ZSCORE', places, id)
    call('ZREM', key_of('d', queue), mid)
    if seq then
      call('ZREM', places, id)
      call('ZADD', key_of('r' .. priority, queue), seq, id)
      fill(queue, priority)
    end
  end
end

-- Count ready and delayed messages; those whose ttl is over do not count, swept or not.
local function unclaimed(queue)
  local count = call('ZCARD', key_of('d', queue))
  for _, priority in ipairs(call('SMEMBERS', key_of('s', queue))) do
    count = count + call('LLEN', key_of('l' .. priority, queue))
    count = count + call('ZCARD', key_of('r' .. priority, queue))
  end
  return count - call('ZCOUNT', key_of('t', queue), '-inf', now)
end

-- Delay a message that is nowhere; whoever waits must know if it is the next to be due.
local function postpone(queue, mid, id, priority, seq, delay)
  local delayed = key_of('d', queue)
  call('ZADD', delayed, now + delay, mid)
  call('ZADD', key_of('p' .. priority, queue), seq, id)
  if call('ZRANGE', delayed, 0, 0)[1] == mid then
    ring(queue, 1)
  end
end

-- Put a message whose claim has ended where it belongs, at its old place.
local function put_back(queue, id, record, delay, counted, crashed)
  local seq, priority, attempts, crashes = record[3], record[4], record[5], record[6]
  local max_deliveries, expires, reason = record[7], record[8], record[9]
  if crashed then
    crashes = crashes + 1
  end
  if reason == '' then
    if not counted then
      attempts = attempts - 1
    end
    if expires > 0 and expires <= now then
      reason = 'expired'
    elseif max_deliveries > 0 and attempts >= max_deliveries then
      reason = 'delivery_limit'
    end
  end
  local mid = priority .. id
  local meta = {attempts, crashes, max_deliveries, reason}
  if reason ~= '' then
    bury(queue, mid, id, seq, meta)
    return
  end
  if attempts > 0 or crashes > 0 or max_deliveries > 0 then
    set_meta(queue, id, meta)
  end
  if expires > 0 then
    note_expiry(queue, mid, expires)
  end
  if delay > 0 then
    postpone(queue, mid, id, priority, seq, delay)
  else
    call('ZADD', key_of('r' .. priority, queue), seq, id)
    fill(queue, priority)
    ring(queue, 1)
  end
end

-- The keys that hold a queue's unclaimed messages.
local function keys_of_unclaimed(queue)
  local keys = {}
  for _, kind in ipairs({'m', 'a', 'b', 'd', 's', 't', 'x'}) do
    keys[#keys + 1] = key_of(kind, queue)
  end
  for priority = 0, 9 do
    for _, kind in ipairs({'l', 'r', 'p'}) do
      keys[#keys + 1] = key_of(kind .. priority, queue)
    end
  end
  return keys
end
