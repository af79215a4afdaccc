-- The keys of one queue that every step on it uses. `keys.py` describes each key.

local function key_of(kind, queue)
  return P .. kind .. ':' .. queue
end

-- The place and the id that an entry of a list stands for; what is no such entry has no message.
local function read_place(entry)
  local seq, id = string.match(entry, '^(%d+):(.*)$')
  return seq or '0', id or ''
end

-- Say that this priority may have ready messages; claims look nowhere else.
local function fill(queue, priority)
  call('SADD', key_of('s', queue), priority)
end

-- Bells end waits: a claim that found nothing blocks until it can take one of its queues' bells, and
-- then looks again. A queue has bells as long as it has ready messages: who adds some rings, and a
-- claim leaves a bell if it leaves messages.

local BELLS = {'', '', '', '', '', '', '', '', '', ''}
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
