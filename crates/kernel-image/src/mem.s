# The memory functions that compiled code calls, under names of their own, so that they can be tested beside the C library's.
# Processors that have protection keys have fast string instructions, which take long to begin, though: short pieces go by words, from
# both ends where that saves a loop.

kernel_memcpy:
    mov rax, rdi
    cmp rdx, 16
    jb 2f
    movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    cmp rdx, 32
    ja 1f
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    ret
1:
    cmp rdx, 1024
    ja 12f
    movups xmm2, [rsi + rdx - 32]
    lea r8, [rdi + rdx - 32]
11:
    movups xmm0, [rsi]
    movups xmm3, [rsi + 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm3
    add rsi, 32
    add rdi, 32
    cmp rdi, r8
    jb 11b
    movups [r8], xmm2
    movups [r8 + 16], xmm1
    ret
12:
    mov rcx, rdx
    rep movsb
    ret
2:
    cmp edx, 8
    jb 4f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
4:
    cmp edx, 4
    jb 13f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
    # One to three bytes: the first, the middle and the last.
13:
    test edx, edx
    jz 14f
    mov r9, rdx
    shr r9, 1
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + rdx - 1]
    movzx r10d, byte ptr [rsi + r9]
    mov [rdi], cl
    mov [rdi + r9], r10b
    mov [rdi + rdx - 1], r8b
14:
    ret
kernel_memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jae kernel_memcpy
    # The destination begins within the source: from the end down.
    mov rax, rdi
15:
    cmp rdx, 16
    jb 16f
    movups xmm0, [rsi + rdx - 16]
    movups [rdi + rdx - 16], xmm0
    sub rdx, 16
    jmp 15b
16:
    test edx, edx
    jz 17f
    dec edx
    movzx ecx, byte ptr [rsi + rdx]
    mov [rdi + rdx], cl
    jmp 16b
17:
    ret
kernel_memset:
    mov r8, rdi
    movzx eax, sil
    mov r9, 0x0101010101010101
    imul rax, r9
    cmp rdx, 16
    jb 19f
    cmp rdx, 512
    ja 20f
    movq xmm0, rax
    punpcklqdq xmm0, xmm0
    lea r9, [rdi + rdx - 16]
18:
    movups [rdi], xmm0
    add rdi, 16
    cmp rdi, r9
    jb 18b
    movups [r9], xmm0
    mov rax, r8
    ret
19:
    cmp edx, 8
    jb 20f
    mov [rdi], rax
    mov [rdi + rdx - 8], rax
    mov rax, r8
    ret
20:
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
kernel_bcmp:
kernel_memcmp:
    xor ecx, ecx
5:
    lea r8, [rcx + 8]
    cmp r8, rdx
    ja 6f
    mov rax, [rdi + rcx]
    mov r9, [rsi + rcx]
    cmp rax, r9
    jne 7f
    mov rcx, r8
    jmp 5b
7:
    bswap rax
    bswap r9
    cmp rax, r9
    sbb eax, eax
    or eax, 1
    ret
6:
    cmp rcx, rdx
    je 8f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    je 6b
    ret
8:
    xor eax, eax
    ret
kernel_strlen:
    xor eax, eax
9:
    cmp byte ptr [rdi + rax], 0
    je 10f
    inc rax
    jmp 9b
10:
    ret
