-- Store.interrupt: end the wait of one handle. Plan: {handle}. Nothing is answered.

local name = P .. 'wake:' .. plan[1]
call('DEL', name)
call('RPUSH', name, '')
call('PEXPIRE', name, 5000)
return ''
