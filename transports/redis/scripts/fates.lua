-- What becomes of messages that are not simply put and taken: delayed, mortal, returned, dead. Most
-- steps need none of it, and making thirty functions takes as long as ten commands: so they are made
-- when `fates` is called.
--
-- A mid is a message's priority, one digit, followed by its id. A meta says what is unusual about an
-- unclaimed message, as text: attempts, crashes, max_deliveries and reason, with spaces between.

local SWEEP = 1000

local function fates()
  local fate = {}
  local left = SWEEP

  -- Fail now, before the first write, if a key of this queue has a foreign type. `priorities` are
  -- those of which something will be written; all if nil.
  function fate.touch(queue, priorities)
    for _, kind in ipairs({'m', 'a'}) do
      check('HLEN', key_of(kind, queue))
    end
    for _, kind in ipairs({'d', 't', 'x'}) do
      check('ZCARD', key_of(kind, queue))
    end
    bells(queue)
    for _, priority in ipairs(priorities or {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) do
      check('LLEN', key_of('l' .. priority, queue))
      check('ZCARD', key_of('r' .. priority, queue))
      check('ZCARD', key_of('p' .. priority, queue))
    end
    check('SCARD', key_of('s', queue))
    check('SCARD', key_of('h', queue))
    check('SCARD', P .. 'dead')
    check('ZCARD', P .. 'ttl')
  end

  function fate.meta_of(attempts, crashes, most, reason)
    return attempts .. ' ' .. crashes .. ' ' .. most .. ' ' .. reason
  end

  function fate.note_expiry(queue, mid, expires)
    call('ZADD', key_of('t', queue), expires, mid)
    call('ZADD', P .. 'ttl', 'LT', expires, queue)
  end

  -- Put a message that is nowhere with the dead ones.
  function fate.bury(queue, mid, id, seq, meta)
    call('HSET', key_of('a', queue), id, meta)
    call('ZADD', key_of('x', queue), seq, mid)
    call('SADD', P .. 'dead', queue)
  end

  -- The same for one that was not dead yet, and may have a meta.
  function fate.condemn(queue, mid, id, seq, reason)
    local attempts, crashes, most = read_meta(call('HGET', key_of('a', queue), id) or '')
    fate.bury(queue, mid, id, seq, fate.meta_of(attempts, crashes, most, reason))
  end

  -- Let a message die that is delayed or has come back.
  function fate.kill(queue, mid, reason)
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
    fate.condemn(queue, mid, id, seq, reason)
  end

  -- The mids in a zset of times whose time has come: a thousand in one step at most, however many
  -- queues it looks at, so that nobody waits for it long; and whether there may be more.
  local function due(kind, queue)
    if left == 0 then
      return {}, true
    end
    local mids = call('ZRANGEBYSCORE', key_of(kind, queue), '-inf', time(), 'LIMIT', 0, left)
    left = left - #mids
    return mids, left == 0
  end

  -- Let messages die whose ttl is over; say whether there may be more of them.
  function fate.sweep(queue)
    local over, more = due('t', queue)
    for _, mid in ipairs(over) do
      fate.kill(queue, mid, 'expired')
    end
    return more
  end

  -- Make delayed messages ready that are due.
  function fate.promote(queue)
    for _, mid in ipairs((due('d', queue))) do
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
  function fate.unclaimed(queue)
    local count = call('ZCARD', key_of('d', queue))
    for _, priority in ipairs(call('SMEMBERS', key_of('s', queue))) do
      count = count + call('LLEN', key_of('l' .. priority, queue))
      count = count + call('ZCARD', key_of('r' .. priority, queue))
    end
    return count - call('ZCOUNT', key_of('t', queue), '-inf', time())
  end

  -- Delay a message that is nowhere; whoever waits must know if it is the next to be due.
  function fate.postpone(queue, mid, id, priority, seq, delay)
    local delayed = key_of('d', queue)
    call('ZADD', delayed, time() + delay, mid)
    call('ZADD', key_of('p' .. priority, queue), seq, id)
    if call('ZRANGE', delayed, 0, 0)[1] == mid then
      ring(queue, 1)
    end
  end

  -- Put a message whose claim has ended where it belongs, at its old place.
  function fate.put_back(queue, id, record, delay, counted, crashed)
    local seq, priority, attempts, crashes, most, expires, reason = read_record(record)
    if crashed then
      crashes = crashes + 1
    end
    expires = tonumber(expires)
    if reason == '' then
      if not counted then
        attempts = attempts - 1
      end
      if expires > 0 and expires <= time() then
        reason = 'expired'
      elseif tonumber(most) > 0 and tonumber(attempts) >= tonumber(most) then
        reason = 'delivery_limit'
      end
    end
    local mid = priority .. id
    local meta = fate.meta_of(attempts, crashes, most, reason)
    if reason ~= '' then
      fate.bury(queue, mid, id, seq, meta)
      return
    end
    if meta ~= '0 0 0 ' then
      call('HSET', key_of('a', queue), id, meta)
    end
    if expires > 0 then
      fate.note_expiry(queue, mid, expires)
    end
    if delay > 0 then
      fate.postpone(queue, mid, id, priority, seq, delay)
    else
      call('ZADD', key_of('r' .. priority, queue), seq, id)
      fill(queue, priority)
      ring(queue, 1)
    end
  end

  -- The keys that hold a queue's unclaimed messages.
  function fate.keys_of_unclaimed(queue)
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

  return fate
end
