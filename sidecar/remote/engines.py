"""What starts an engine on a host: the text that a command line holds, which reads the engine's script from stdin.

A bootstrap stands in single quotes in a command for whatever shell the user has: it holds no single quote, backslash,
exclamation mark (csh) or line feed.
"""

from __future__ import annotations

# The script becomes a module by way of a data: URL, so that its text is the file's, imports and all, without a file.
NODE_BOOTSTRAP = (
    'const fs=require("fs"),nap=new Int32Array(new SharedArrayBuffer(4));'
    "const read=(size)=>{const all=Buffer.alloc(size);"
    "for(let end=0,count;end<size;end+=count){"
    "try{count=fs.readSync(0,all,end,size-end)}"
    'catch(error){if(error.code==="EAGAIN"){Atomics.wait(nap,0,0,5);count=0;continue}throw error}'
    "if(count<1)process.exit(1)}"
    "return all};"
    'let size="",byte;'
    "while((byte=read(1)[0])>10)size+=String.fromCharCode(byte);"
    'import("data:text/javascript;base64,"+read(Number(size)).toString("base64"))'
)

# A host whose link went dead before there is a lease is left by an alarm, which no handler can be in the way of. What
# has a loop in it can be one line of a program only as a text of its own.
PYTHON_BOOTSTRAP = (
    "import signal,sys;given=sys.stdin.buffer;"
    "read=lambda size:(signal.alarm(20),given.read1(size))[1];"
    "signal.alarm(20);size=int(given.readline());script=bytes();"
    'exec("while len(script)<size: script+=read(size-len(script)) or sys.exit(1)");'
    'exec(compile(script,"helper.py","exec"))'
)
